//! Loops of disassembled kernels.

use std::collections::BTreeMap;

/// The name of an instruction, and the label of its branch.
struct Instruction<'a> {
    name: &'a str,
    /// A branch: its label, and whether it is conditional.
    branch: Option<(&'a str, bool)>,
}

/// Which of the loops with an instruction is the main one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MainLoop {
    /// That with the most of them.
    Most,
    /// The shortest one, of a persistent kernel, whose outer loop is over tiles.
    Innermost,
}

/// The instructions with `name` and all instructions of a turn of the main loop.
///
/// Code that a branch can skip and that has none of them is not counted: the masks, the soft cap, and the copies of the next
/// block, which the last one skips. `(0, 0)` if there is no such loop.
pub fn instructions_of_main_loop(section: &str, name: &str, main: MainLoop) -> (usize, usize) {
    let (mut instructions, mut labels) = (Vec::new(), BTreeMap::new());
    for line in section.lines() {
        let line = line.trim();
        if let Some(label) = line.strip_suffix(':').filter(|label| label.starts_with('.')) {
            labels.insert(label, instructions.len());
        } else if let Some(instruction) = instruction(line) {
            instructions.push(instruction);
        }
    }
    let count = |range: &[Instruction]| range.iter().filter(|instruction| instruction.name == name).count();
    let target = |instruction: &Instruction| instruction.branch.and_then(|(label, _)| labels.get(label)).copied();
    // The shortest of the loops with the most: a jump back from code behind the loop looks like a longer one.
    let loops = instructions.iter().enumerate().filter_map(|(last, instruction)| {
        let first = target(instruction).filter(|first| *first <= last)?;
        (count(instructions.get(first..=last).unwrap_or_default()) > 0).then_some((first, last))
    });
    let best = loops.max_by_key(|(first, last)| {
        let body = instructions.get(*first..=*last).unwrap_or_default();
        (if main == MainLoop::Most { count(body) } else { 0 }, usize::MAX - body.len())
    });
    let Some((first, last)) = best else { return (0, 0) };
    let (mut all, mut index) = (0, first);
    while let Some(instruction) = instructions.get(index).filter(|_| index <= last) {
        all += 1;
        let skipped =
            instruction.branch.filter(|(_, is_conditional)| *is_conditional).and_then(|_| target(instruction));
        index = match skipped {
            Some(to) if to > index && to <= last && count(instructions.get(index..to).unwrap_or_default()) == 0 => to,
            _ => index + 1,
        };
    }
    (count(instructions.get(first..=last).unwrap_or_default()), all)
}

/// The instruction of a line such as `/*0a10*/  @!P0 BRA `(.L_x_2) ;`.
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (_, code) = line.strip_prefix("/*")?.split_once("*/")?;
    let code = code.split(';').next()?.trim();
    let (predicate, code) = match code.strip_prefix('@') {
        Some(predicated) => predicated.split_once(' ').map(|(predicate, code)| (Some(predicate), code.trim()))?,
        None => (None, code),
    };
    let word = code.split_whitespace().next()?;
    let name = word.split('.').next()?;
    // A uniform branch has its predicate after the name: `BRA.U !UP0, `(.L_x_2)`.
    let is_conditional = predicate.is_some() || word.contains(".U") || code.contains("UP");
    let label = code.split_once("`(").and_then(|(_, rest)| rest.split(')').next());
    Some(Instruction { name, branch: label.filter(|_| name == "BRA").map(|label| (label, is_conditional)) })
}
