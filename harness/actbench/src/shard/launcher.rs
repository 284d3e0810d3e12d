//! The shard of a process that a launcher started, read from the variables that the launcher sets.
//!
//! A task of an array may start several processes, so the two are combined: the array's task is the outer number. Processes
//! are numbered by the innermost launcher alone, because torchrun and Open MPI count over all nodes, whatever started them.
//!
//! Sources: Slurm's sbatch(1) and srun(1), "OUTPUT ENVIRONMENT VARIABLES"; torchrun, "Environment Variables"; Open MPI,
//! "Environment variables set in processes"; Kubernetes, "Indexed Job".

use super::Shard;
use crate::error::{Error, Result};

/// A number of `of`, from 0 on, and who gave it.
struct Task {
    index: usize,
    /// None if the launcher does not say.
    of: Option<usize>,
    source: String,
}

/// The shard of this process and the variables it comes from. With `count` the tasks are numbered from 0 to `count` - 1, so
/// that an array of some of them, such as those that failed, computes the same shards.
///
/// # Errors
/// No launcher; a variable that is not a number; numbers that do not fit; or a launcher that does not say how many tasks there
/// are, without `count`.
pub fn shard(count: Option<usize>, variable: &dyn Fn(&str) -> Option<String>) -> Result<(Shard, String)> {
    let read = Variables(variable);
    let array = read.array(count.is_some())?;
    let process = match &array {
        // The tasks of a Kubernetes job are processes.
        Some(_) => read.process()?,
        None => match read.process()? {
            None => read.kubernetes()?,
            process => process,
        },
    };
    let task = match (array, process) {
        (None, None) => {
            return Err(Error::usage(
                "--shard auto: no launcher started this process (none of SLURM_ARRAY_TASK_ID, RANK, OMPI_COMM_WORLD_RANK, \
                 SLURM_PROCID in a step, JOB_COMPLETION_INDEX is set); use --shard I/N",
            ));
        }
        (Some(task), None) | (None, Some(task)) => task,
        (Some(array), Some(process)) => combined(array, process)?,
    };
    let Task { index, of, source } = task;
    let Some(of) = count.or(of) else {
        return Err(Error::usage(format!("--shard auto: {source} does not say of how many; use --shard auto/N")));
    };
    if index >= of {
        return Err(Error::usage(format!("--shard auto: {source} is not one of the tasks 0 to {} of {of}", of - 1)));
    }
    Ok((Shard { index: index + 1, count: of }, source))
}

/// The number of a process of a task of an array.
fn combined(array: Task, process: Task) -> Result<Task> {
    let source = format!("{} and {}", array.source, process.source);
    let Some(processes) = process.of else {
        return Err(Error::usage(format!("--shard auto: {source} does not say of how many; use --shard I/N")));
    };
    let index = array.index.checked_mul(processes).and_then(|index| index.checked_add(process.index));
    let of = array.of.map_or(Some(None), |of| of.checked_mul(processes).map(Some));
    match (index, of) {
        (Some(index), Some(of)) if process.index < processes => Ok(Task { index, of, source }),
        _ => Err(Error::usage(format!("--shard auto: {source} do not fit {processes} processes"))),
    }
}

/// The environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = (self.0)(name) else { return Ok(None) };
        let number = text.parse();
        number.map(Some).map_err(|_| Error::usage(format!("--shard auto: {name} is '{text}', not a number")))
    }

    fn numbered(&self, index: &str, of: &str) -> Result<Option<Task>> {
        let Some(number) = self.number(index)? else { return Ok(None) };
        let of = self.number(of)?;
        Ok(Some(Task { index: number, of, source: format!("{index}={number}") }))
    }

    /// The task of a Slurm array. Unless the number of shards `is_given`, the array has to be a whole one: part of an array,
    /// submitted again, would be read as an array of fewer shards.
    fn array(&self, is_given: bool) -> Result<Option<Task>> {
        let Some(task) = self.numbered("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")? else { return Ok(None) };
        if is_given {
            return Ok(Some(Task { of: None, ..task }));
        }
        let (first, last) = (self.number("SLURM_ARRAY_TASK_MIN")?, self.number("SLURM_ARRAY_TASK_MAX")?);
        let (Some(of), Some(first), Some(last)) = (task.of, first, last) else {
            return Err(Error::usage(format!(
                "--shard auto: {} without SLURM_ARRAY_TASK_COUNT, _MIN and _MAX; use --shard auto/N",
                task.source
            )));
        };
        if first > 1 || last.saturating_add(1) != first.saturating_add(of) || task.index < first {
            return Err(Error::usage(format!(
                "--shard auto: the array's {of} tasks from {first} to {last} are not 0 to N-1 or 1 to N, so it may be a part of \
                 another array; use --shard auto/N, with tasks numbered from 0"
            )));
        }
        Ok(Some(Task { index: task.index - first, ..task }))
    }

    /// The process of the innermost launcher of processes.
    fn process(&self) -> Result<Option<Task>> {
        for (index, of) in [("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")] {
            if let Some(task) = self.numbered(index, of)? {
                return Ok(Some(task));
            }
        }
        // A batch script has the number of a process, too, but is one process, whatever the number of tasks. srun sets the
        // number of its step; those of Slurm's own steps, such as that of the script, are the largest of 32 bits.
        const FIRST_OWN_STEP: usize = 0xffff_fff0;
        match self.number("SLURM_STEP_ID")? {
            Some(step) if step < FIRST_OWN_STEP => self.numbered("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
            _ => Ok(None),
        }
    }

    /// The pod of an indexed job, which does not know the number of pods.
    fn kubernetes(&self) -> Result<Option<Task>> {
        let index = self.number("JOB_COMPLETION_INDEX")?;
        let source = |index| format!("JOB_COMPLETION_INDEX={index}");
        Ok(index.map(|index| Task { index, of: None, source: source(index) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: Option<usize>, variables: &[(&str, &str)]) -> Result<String, String> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        shard(count, &read).map(|(shard, source)| format!("{shard} {source}")).map_err(|error| error.to_string())
    }

    fn array(
        id: &'static str,
        first: &'static str,
        last: &'static str,
        of: &'static str,
    ) -> [(&'static str, &'static str); 4] {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", first),
            ("SLURM_ARRAY_TASK_MAX", last),
            ("SLURM_ARRAY_TASK_COUNT", of),
        ]
    }

    #[test]
    fn tasks_of_whole_arrays_are_shards() {
        assert_eq!(of(None, &array("0", "0", "7", "8")), Ok("1/8 SLURM_ARRAY_TASK_ID=0".to_owned()));
        assert_eq!(of(None, &array("8", "1", "8", "8")), Ok("8/8 SLURM_ARRAY_TASK_ID=8".to_owned()));
    }

    #[test]
    fn parts_of_arrays_need_the_number_of_shards() {
        for part in [array("3", "3", "4", "2"), array("4", "0", "6", "4"), array("0", "0", "5", "2")] {
            assert!(of(None, &part).unwrap_err().contains("--shard auto/N"), "{part:?}");
        }
        assert_eq!(of(Some(8), &array("3", "3", "4", "2")), Ok("4/8 SLURM_ARRAY_TASK_ID=3".to_owned()));
        assert!(of(Some(8), &array("8", "1", "8", "8")).unwrap_err().contains("0 to 7 of 8"));
    }

    #[test]
    fn processes_of_each_launcher_are_shards() {
        let shards = [
            (&[("RANK", "2"), ("WORLD_SIZE", "4")][..], "3/4 RANK=2"),
            (&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")], "1/2 OMPI_COMM_WORLD_RANK=0"),
            (&[("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "6")], "6/6 SLURM_PROCID=5"),
            // torchrun under srun: its own numbers count.
            (&[("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "1"), ("RANK", "9"), ("WORLD_SIZE", "16")], "10/16 RANK=9"),
        ];
        for (variables, expected) in shards {
            assert_eq!(of(None, variables), Ok(expected.to_owned()));
        }
        assert_eq!(of(Some(5), &[("JOB_COMPLETION_INDEX", "4")]), Ok("5/5 JOB_COMPLETION_INDEX=4".to_owned()));
        assert!(of(None, &[("JOB_COMPLETION_INDEX", "4")]).unwrap_err().contains("--shard auto/N"));
    }

    #[test]
    fn processes_of_array_tasks_are_numbered_together() {
        let with_processes = |id| [&array(id, "0", "1", "2")[..], &[("RANK", "1"), ("WORLD_SIZE", "3")]].concat();
        assert_eq!(of(None, &with_processes("0")), Ok("2/6 SLURM_ARRAY_TASK_ID=0 and RANK=1".to_owned()));
        assert_eq!(of(None, &with_processes("1")), Ok("5/6 SLURM_ARRAY_TASK_ID=1 and RANK=1".to_owned()));
        assert_eq!(of(Some(9), &with_processes("2")), Ok("8/9 SLURM_ARRAY_TASK_ID=2 and RANK=1".to_owned()));
    }

    #[test]
    fn batch_script_is_one_process() {
        let script = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")];
        assert!(of(None, &script).unwrap_err().contains("no launcher"));
        let own_step = [&script[..], &[("SLURM_STEP_ID", "4294967291")]].concat();
        assert!(of(None, &own_step).unwrap_err().contains("no launcher"));
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for (variables, words) in [
            (&[("RANK", "x"), ("WORLD_SIZE", "4")][..], "RANK is 'x'"),
            (&[("RANK", "4"), ("WORLD_SIZE", "4")], "RANK=4"),
            (&[("RANK", "0")], "--shard auto/N"),
            (&[("SLURM_ARRAY_TASK_ID", "0")], "--shard auto/N"),
            (&[], "--shard I/N"),
        ] {
            let error = of(None, variables).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let too_many = [&array("1", "0", "1", "2")[..], &[("RANK", "3"), ("WORLD_SIZE", "3")]].concat();
        assert!(of(None, &too_many).is_err());
    }
}
