//! Groups of launches as graphs: one call for all of them, and the graph kept for the next group of the same kernels.
//!
//! A kept graph is told which parameters have changed before it is launched again. Of consecutive batches of one shape
//! these are few: weights and workspace stay where they are. Its nodes are a chain, as the launches would be in a stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::prepared::Prepared;
use super::session::{LastWork, Session};
use super::words::{is_fatal, words};
use crate::error::KernelError;

/// The most rows of a batch whose launches are grouped. Up to there the kernels of a block take less time on the device
/// than their launches do on the host (3 to 5 us against 3 us each on an H100), so that the device would wait. A longer
/// batch would wait for its group to be made and gain nothing.
pub(super) const MOST_ROWS: usize = 256;

/// The fewest launches that become a graph: to launch one costs about as much as so many single ones.
const FEWEST_LAUNCHES: usize = 4;

/// How many graphs are kept: a model hands out after each of its blocks at most, and batches come in some kinds, with and
/// without rows that stay for the next one.
const KEPT: usize = 128;

/// What became of the groups of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphUse {
    /// Graphs that were launched.
    pub graphs: u64,
    /// Launches in all of them.
    pub launches: u64,
    /// Graphs that had to be made first.
    pub made: u64,
    /// Launches of kept graphs whose parameters had changed.
    pub changed: u64,
    /// Why no graphs are made any more, if the driver refused one.
    pub refused: Option<String>,
}

/// The graphs of a device.
#[derive(Default)]
pub(super) struct Graphs(Mutex<State>);

#[derive(Default)]
struct State {
    is_off: bool,
    usage: GraphUse,
    /// Those used last in front.
    kept: VecDeque<Kept>,
}

/// A graph and what was last launched with it.
struct Kept {
    place: usize,
    executable: Executable,
    launches: Vec<Prepared>,
    /// What it is, for errors.
    told: Arc<str>,
}

/// A graph as the driver has it, in both forms: nodes are named by the first and changed in the second.
struct Executable {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
    context: Arc<CudaContext>,
}

// SAFETY: the driver asks that calls with one graph are not made at the same time, from whatever threads; all are made
// under the lock of `Graphs`.
unsafe impl Send for Executable {}

impl Graphs {
    /// Turns the use of graphs off, or on again.
    pub(super) fn set(&self, on: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_off = !on;
    }

    /// Whether groups are to be made at all.
    pub(super) fn is_on(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !state.is_off && state.usage.refused.is_none()
    }

    /// What became of groups so far.
    pub(super) fn usage(&self) -> GraphUse {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).usage.clone()
    }

    /// Launches `launches`, a group of `place`: as a graph where the driver takes it, else one by one.
    ///
    /// # Errors
    /// A launch that fails, by name; a graph that breaks the context, with the names of its kernels.
    pub(super) fn launch(&self, session: &Session, place: usize, launches: Vec<Prepared>) -> Result<(), KernelError> {
        if launches.len() < FEWEST_LAUNCHES {
            return session.launch_all(launches);
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (error, launches) = match state.launch(session, place, launches) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        if is_fatal(error) {
            return session.check("launch", || told(&launches), Err(error));
        }
        // One by one the launch that is at fault is named. If none is, graphs are, and others would fare no better.
        session.launch_all(launches)?;
        state.usage.refused = Some(words(error));
        state.kept.clear();
        Ok(())
    }
}

impl State {
    /// Launches a kept graph or a new one; what the driver refused is given back as it came.
    fn launch(
        &mut self,
        session: &Session,
        place: usize,
        launches: Vec<Prepared>,
    ) -> Result<(), (DriverError, Vec<Prepared>)> {
        let known = self.kept.iter().position(|kept| kept.place == place && kept.is_of(&launches));
        let kept = match known.and_then(|index| self.kept.remove(index)) {
            Some(mut kept) => match kept.executable.change(&kept.launches, &launches) {
                Ok(changed) => {
                    self.usage.changed += changed;
                    kept.launches = launches;
                    Ok(kept)
                }
                // What cannot be changed is made anew.
                Err(_) => self.make(session, place, launches),
            },
            None => self.make(session, place, launches),
        }?;
        // SAFETY: graph and stream are of this context. Memory that the nodes use is given back in the stream's order, so
        // after this launch; parameters that are changed later are those of later launches.
        let launched = unsafe { result::graph::launch(kept.executable.executable, session.stream.cu_stream()) };
        if let Err(error) = launched {
            return Err((error, kept.launches));
        }
        self.usage.graphs += 1;
        self.usage.launches += kept.launches.len() as u64;
        session.did(LastWork::Group(kept.told.clone()));
        self.kept.push_front(kept);
        self.kept.truncate(KEPT);
        Ok(())
    }

    fn make(
        &mut self,
        session: &Session,
        place: usize,
        launches: Vec<Prepared>,
    ) -> Result<Kept, (DriverError, Vec<Prepared>)> {
        match Executable::new(session, &launches) {
            Ok(executable) => {
                self.usage.made += 1;
                let told = told(&launches).into();
                Ok(Kept { place, executable, launches, told })
            }
            Err(error) => Err((error, launches)),
        }
    }
}

impl Kept {
    /// Whether it is of the kernels of `launches`, in their order.
    fn is_of(&self, launches: &[Prepared]) -> bool {
        self.launches.len() == launches.len()
            && self.launches.iter().zip(launches).all(|(kept, launch)| Arc::ptr_eq(&kept.kernel, &launch.kernel))
    }
}

/// A group in an error: which of its launches failed a driver does not say.
fn told(launches: &[Prepared]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for launch in launches {
        if !names.contains(&launch.kernel.name.as_str()) {
            names.push(&launch.kernel.name);
        }
    }
    format!(
        "one of {} launches in a graph, of {} (ACTBENCH_CUDA_GRAPHS=off launches them one by one)",
        launches.len(),
        names.join(", ")
    )
}

impl Executable {
    /// A chain of `launches`.
    fn new(session: &Session, launches: &[Prepared]) -> Result<Self, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the place is of this scope, and no flags are defined.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result()?;
        let nodes = Vec::with_capacity(launches.len());
        let (executable, context) = (std::ptr::null_mut(), session.context.clone());
        // From here on dropping it destroys what there is of it.
        let mut made = Executable { graph, executable, nodes, context };
        for launch in launches {
            let mut node = std::ptr::null_mut();
            let after = made.nodes.last().map_or(&[][..], std::slice::from_ref);
            launch.as_node(|described| {
                // SAFETY: the graph is this object's, the node before is of it, and the driver copies the parameters, whose
                // number and sizes are those of the kernel.
                unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph, after.as_ptr(), after.len(), described) }
                    .result()
            })?;
            made.nodes.push(node);
        }
        // SAFETY: the graph is whole, and is destroyed after what is made of it.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut made.executable, graph, 0) }.result()?;
        Ok(made)
    }

    /// Changes the nodes whose launches are not what they were. How many.
    fn change(&mut self, from: &[Prepared], to: &[Prepared]) -> Result<u64, DriverError> {
        let mut changed = 0;
        for (node, (from, to)) in self.nodes.iter().zip(from.iter().zip(to)) {
            if !to.is_same_as(from) {
                to.as_node(|described| {
                    // SAFETY: the node is of the graph that this was made of, which is still there; the driver copies the
                    // parameters. Launches under way keep those they were launched with, as the driver's reference says.
                    unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.executable, *node, described) }.result()
                })?;
                changed += 1;
            }
        }
        Ok(changed)
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // Nobody is left to tell of a failure here. A graph that is under way is freed when it has ended.
        if !self.executable.is_null() {
            // SAFETY: made in `new` and destroyed here alone.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::graph::destroy(self.graph) };
    }
}
