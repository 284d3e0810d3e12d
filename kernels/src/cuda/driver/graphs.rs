//! Groups of launches as CUDA graphs: one call launches all of them, and the graph is cached for the next group of the
//! same kernels.
//!
//! A cached graph is updated with the changed parameters before it is launched again. Between consecutive batches of
//! one shape few parameters change, as weights and workspace stay at their addresses. The nodes of a graph form a
//! chain, as the launches would in a stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::context::{DriverContext, LastLaunch};
use super::driver_error::{error_message, is_fatal};
use super::encoded_launch::EncodedLaunch;
use super::session::Session;
use crate::error::KernelError;

/// The largest batch whose launches are grouped, in rows. Up to this size the kernels of a block take less time on the
/// device than their launches take on the host (on an H100 3 to 5 us against 3 us each), so the device would be idle. A
/// larger batch would only wait for its group to be encoded.
pub(super) const MAX_ROWS: usize = 256;

/// The smallest group that becomes a graph: launching a graph costs about as much as this many single launches.
const MIN_LAUNCHES: usize = 4;

/// The number of cached graphs. A model has at most one group a block, and batches come in a few kinds (with or without
/// rows that are kept for the next batch).
const MAX_CACHED: usize = 128;

/// Counters of the graphs of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphUsage {
    /// Launches of graphs.
    pub graphs: u64,
    /// Kernel launches in all of them.
    pub launches: u64,
    /// Graphs that were created.
    pub created: u64,
    /// Updated nodes of cached graphs.
    pub updated: u64,
    /// The driver's error, after which no more graphs are created.
    pub refused: Option<String>,
}

/// The cached graphs of a device.
#[derive(Default)]
pub(super) struct GraphCache(Mutex<CacheState>);

#[derive(Default)]
struct CacheState {
    is_off: bool,
    usage: GraphUsage,
    /// Most recently used first.
    cached: VecDeque<CachedGraph>,
}

/// A graph and the launches that its nodes have now.
struct CachedGraph {
    graph_slot: usize,
    executable: GraphExecutable,
    launches: Vec<EncodedLaunch>,
    /// For error messages.
    description: Arc<str>,
}

/// A graph and its instance. The driver identifies nodes by the former and updates them in the latter.
struct GraphExecutable {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
    context: Arc<CudaContext>,
}

// SAFETY: the driver allows calls with a graph from any thread, one at a time. All are made under the lock of
// `GraphCache`.
unsafe impl Send for GraphExecutable {}

impl GraphCache {
    fn lock(&self) -> MutexGuard<'_, CacheState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enables or disables graphs.
    pub(super) fn set_enabled(&self, enabled: bool) {
        self.lock().is_off = !enabled;
    }

    /// Whether groups become graphs: enabled, and no graph was refused by the driver.
    pub(super) fn is_enabled(&self) -> bool {
        let state = self.lock();
        !state.is_off && state.usage.refused.is_none()
    }

    /// The counters so far.
    pub(super) fn usage(&self) -> GraphUsage {
        self.lock().usage.clone()
    }

    /// Launches the group `launches` of `graph_slot`: as a graph if it is large enough and the driver accepts it,
    /// otherwise one by one.
    ///
    /// # Errors
    /// The first launch that fails, or a graph that breaks the context, with the names of its kernels.
    pub(super) fn launch(
        &self,
        session: &Session,
        graph_slot: usize,
        launches: Vec<EncodedLaunch>,
    ) -> Result<(), KernelError> {
        if launches.len() < MIN_LAUNCHES {
            return session.launch_all(launches);
        }
        let mut state = self.lock();
        let (error, launches) = match state.launch(&session.context, graph_slot, launches) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        if is_fatal(error) {
            return session.context.check("launch", || describe(&launches), Err(error));
        }
        // Single launches identify the launch at fault. If all succeed, the driver does not support the graph, and
        // would refuse others as well.
        session.launch_all(launches)?;
        state.usage.refused = Some(error_message(error));
        state.cached.clear();
        Ok(())
    }
}

impl CacheState {
    /// Launches a cached or a new graph. Returns the launches with the error if the driver refuses it.
    fn launch(
        &mut self,
        context: &DriverContext,
        graph_slot: usize,
        launches: Vec<EncodedLaunch>,
    ) -> Result<(), (DriverError, Vec<EncodedLaunch>)> {
        let matches = |cached: &CachedGraph| cached.graph_slot == graph_slot && cached.has_kernels_of(&launches);
        let index = self.cached.iter().position(matches);
        let graph = match index.and_then(|index| self.cached.remove(index)) {
            Some(mut graph) => match graph.executable.update(&graph.launches, &launches) {
                Ok(updated) => {
                    self.usage.updated += updated;
                    graph.launches = launches;
                    Ok(graph)
                }
                // A graph that cannot be updated is replaced.
                Err(_) => self.create(context, graph_slot, launches),
            },
            None => self.create(context, graph_slot, launches),
        }?;
        // SAFETY: graph and stream belong to this context. The memory of its nodes is freed in the order of the stream,
        // so after this launch. A later update does not affect this launch.
        let launched = unsafe { result::graph::launch(graph.executable.executable, context.stream.cu_stream()) };
        if let Err(error) = launched {
            return Err((error, graph.launches));
        }
        self.usage.graphs += 1;
        self.usage.launches += graph.launches.len() as u64;
        context.set_last_launch(LastLaunch::Graph(graph.description.clone()));
        self.cached.push_front(graph);
        self.cached.truncate(MAX_CACHED);
        Ok(())
    }

    fn create(
        &mut self,
        context: &DriverContext,
        graph_slot: usize,
        launches: Vec<EncodedLaunch>,
    ) -> Result<CachedGraph, (DriverError, Vec<EncodedLaunch>)> {
        match GraphExecutable::new(context, &launches) {
            Ok(executable) => {
                self.usage.created += 1;
                let description = describe(&launches).into();
                Ok(CachedGraph { graph_slot, executable, launches, description })
            }
            Err(error) => Err((error, launches)),
        }
    }
}

impl CachedGraph {
    /// Whether the nodes have the kernels of `launches`, in their order.
    fn has_kernels_of(&self, launches: &[EncodedLaunch]) -> bool {
        self.launches.len() == launches.len()
            && self.launches.iter().zip(launches).all(|(cached, launch)| Arc::ptr_eq(&cached.kernel, &launch.kernel))
    }
}

/// A group in an error message, with all its kernels: the driver does not report which launch of a graph failed.
fn describe(launches: &[EncodedLaunch]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for launch in launches {
        if !names.contains(&launch.kernel.name.as_str()) {
            names.push(&launch.kernel.name);
        }
    }
    format!(
        "a graph of {} launches of {} (ACTBENCH_CUDA_GRAPHS=off launches them one by one)",
        launches.len(),
        names.join(", ")
    )
}

impl GraphExecutable {
    /// An instance of a graph whose nodes are the chain `launches`.
    fn new(context: &DriverContext, launches: &[EncodedLaunch]) -> Result<Self, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable, and no flags are defined.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result()?;
        let nodes = Vec::with_capacity(launches.len());
        // Built before the nodes, so that an error below drops, and thereby destroys, the graph.
        let mut built =
            GraphExecutable { graph, executable: std::ptr::null_mut(), nodes, context: context.cuda.clone() };
        for launch in launches {
            let mut node = std::ptr::null_mut();
            let previous = built.nodes.last().map_or(&[][..], std::slice::from_ref);
            launch.with_node_params(|params| {
                // SAFETY: the previous node is of this graph. The driver copies the parameters, whose number and sizes
                // are those of the kernel.
                unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph, previous.as_ptr(), previous.len(), params) }
                    .result()
            })?;
            built.nodes.push(node);
        }
        // SAFETY: the graph is complete, and is destroyed after its instance.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut built.executable, graph, 0) }.result()?;
        Ok(built)
    }

    /// Updates the nodes whose launches differ between `from` and `to`. Returns their number.
    fn update(&mut self, from: &[EncodedLaunch], to: &[EncodedLaunch]) -> Result<u64, DriverError> {
        let mut updated = 0;
        for (node, (from, to)) in self.nodes.iter().zip(from.iter().zip(to)) {
            if !to.equals(from) {
                to.with_node_params(|params| {
                    // SAFETY: the node is of the graph of this instance, which still exists; the driver copies the
                    // parameters. Launches in flight keep their parameters, as the driver's reference states.
                    unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.executable, *node, params) }.result()
                })?;
                updated += 1;
            }
        }
        Ok(updated)
    }
}

impl Drop for GraphExecutable {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        // A drop cannot return errors. The driver frees a graph in flight when it has completed.
        if !self.executable.is_null() {
            // SAFETY: created in `new` and destroyed here alone.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::graph::destroy(self.graph) };
    }
}
