//! Jinja as Hugging Face Transformers sets it up for chat templates, within bounds.
//!
//! A template comes with a model file, so it is hostile until rendered. Three bounds hold it: *fuel* counts instructions;
//! a *budget* counts the bytes of the values that instructions make; and values nest no deeper than
//! [`budget::MAX_DEPTH`], since everything that walks them recurses. minijinja offers only the first. For the others, its
//! instructions that make or walk values (`+`, `~`, `[…]`, `==`, slices, …) are replaced by operators of our own, registered
//! as filters under names that no template can spell; filters, functions and methods are wrapped. The instructions are
//! an unstable interface of minijinja, so its version is held to the minor one.

mod budget;
mod filters;
mod json;
mod operators;
mod strftime;

use std::collections::BTreeMap;

use minijinja::machinery::{self, CodeGenerator, Instruction, Instructions, Token};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

pub(super) use budget::{Budget, Exhausted};

/// Longest template source, in bytes. The longest in use have 30 kB.
const MAX_SOURCE: usize = 1 << 18;

/// Bytes of the constants that a compilation may fold.
const MAX_CONSTANTS: u64 = 1 << 22;

/// The message of a template that called `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// A compiled template. It borrows its source: compiling takes less time than rendering, so nothing keeps it.
pub(super) struct Compiled<'s> {
    instructions: Instructions<'s>,
    blocks: BTreeMap<&'s str, Instructions<'s>>,
}

impl<'s> Compiled<'s> {
    pub(super) fn new(name: &'s str, source: &'s str) -> Result<Self, Error> {
        if source.len() > MAX_SOURCE {
            return Err(Exhausted::Source.into());
        }
        check_constants(source)?;
        let ast = machinery::parse(source, name, syntax()?)?;
        let mut generator = CodeGenerator::new(name, source);
        generator.compile_stmt(&ast);
        let (instructions, blocks) = generator.finish();
        let blocks =
            blocks.iter().map(|(name, block)| Ok((*name, guard(block)?))).collect::<Result<_, Error>>()?;
        Ok(Self { instructions: guard(&instructions)?, blocks })
    }

    /// Renders with `variables`; `now` is the time in seconds since 1970, UTC.
    pub(super) fn render(&self, variables: &Value, now: i64, budget: Budget) -> Result<String, Error> {
        let env = environment(now, budget);
        let mut text = String::new();
        machinery::eval(
            &env,
            &self.instructions,
            variables.clone(),
            &self.blocks,
            &mut machinery::make_string_output(&mut text),
            AutoEscape::None,
        )?;
        Ok(text)
    }
}

fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// `code` with guarded operators in place of the instructions that make or walk values.
fn guard<'s>(code: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    let mut guarded = Instructions::new(code.name(), code.source());
    // Where each instruction went, for the jumps.
    let mut moved = Vec::new();
    let mut len = 0;
    for index in 0.. {
        moved.push(len);
        let Some(instruction) = code.get(index) else { break };
        let line = code.get_line(index).and_then(|line| u16::try_from(line).ok()).unwrap_or(u16::MAX);
        let mut add = |instruction| len = guarded.add_with_line(instruction, line) + 1;
        match instruction {
            // The formatter counts what is emitted.
            Instruction::EmitRaw(text) => {
                add(Instruction::LoadConst(Value::from(*text)));
                add(Instruction::Emit);
            }
            // Only by assigning to its attribute can a namespace come to hold itself.
            Instruction::SetAttr(_) => {
                let Some(namespace @ Instruction::Lookup(_)) = index.checked_sub(1).and_then(|i| code.get(i))
                else {
                    return Err(Error::new(
                        ErrorKind::SyntaxError,
                        "only attributes of variables can be set",
                    ));
                };
                add(instruction.clone());
                add(namespace.clone());
                add(Instruction::ApplyFilter("@", Some(1), u8::MAX));
                add(Instruction::DiscardTop);
            }
            _ => add(operator(instruction).unwrap_or_else(|| instruction.clone())),
        }
    }
    for index in 0..len {
        if let Some(
            Instruction::Jump(target)
            | Instruction::JumpIfFalse(target)
            | Instruction::JumpIfFalseOrPop(target)
            | Instruction::JumpIfTrueOrPop(target)
            | Instruction::Iterate(target)
            | Instruction::BuildMacro(_, target, _),
        ) = guarded.get_mut(index)
        {
            *target = moved.get(*target as usize).copied().unwrap_or(len);
        }
    }
    Ok(guarded)
}

/// The call of a guarded operator that does what `instruction` does.
fn operator<'s>(instruction: &Instruction<'s>) -> Option<Instruction<'s>> {
    let (name, arguments) = match instruction {
        Instruction::Add => ("+", 2),
        Instruction::Mul => ("*", 2),
        Instruction::StringConcat => ("~", 2),
        Instruction::Eq => ("==", 2),
        Instruction::Ne => ("!=", 2),
        Instruction::Gt => (">", 2),
        Instruction::Gte => (">=", 2),
        Instruction::Lt => ("<", 2),
        Instruction::Lte => ("<=", 2),
        Instruction::In => ("in", 2),
        Instruction::Slice => ("[:]", 4),
        Instruction::BuildList(Some(items)) => ("[]", *items),
        Instruction::BuildTuple(Some(items)) => ("()", *items),
        Instruction::BuildMap(pairs) => ("{}", 2 * pairs),
        _ => return None,
    };
    // Literals too long for an argument count are no longer than the source.
    Some(Instruction::ApplyFilter(name, Some(u16::try_from(arguments).ok()?), u8::MAX))
}

/// Refuses a template whose constant expressions, which are evaluated when it is compiled, could be large.
///
/// Only a repetition makes more of them than the source has, so it suffices to multiply the whole numbers in each tag that
/// holds a `*`.
fn check_constants(source: &str) -> Result<(), Error> {
    let mut total = 0u64;
    let (mut start, mut product, mut repeats) = (0, 1u64, false);
    for token in machinery::tokenize(source, false, syntax()?) {
        let (token, span) = token?;
        match token {
            Token::VariableStart | Token::BlockStart => {
                (start, product, repeats) = (span.start_offset, 1, false)
            }
            Token::Int(n) => product = product.saturating_mul(n.max(1)),
            Token::Int128(_) => product = u64::MAX,
            Token::Mul | Token::Pow => repeats = true,
            Token::VariableEnd | Token::BlockEnd if repeats => {
                let length = u64::from(span.end_offset.saturating_sub(start));
                total = total.saturating_add(product.saturating_mul(length));
            }
            _ => {}
        }
    }
    if total > MAX_CONSTANTS { Err(Exhausted::Memory.into()) } else { Ok(()) }
}

fn environment(now: i64, budget: Budget) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_fuel(Some(budget.fuel));
    // Every level of minijinja's recursion takes a kilobyte or two of a stack that may be small.
    env.set_recursion_limit(100);
    env.set_formatter(move |out, state, value| {
        let budget = budget::of(state, budget);
        budget.walk(value)?;
        budget.charge(budget::text_len(value))?;
        Ok(write!(out, "{value}")?)
    });
    env.set_unknown_method_callback(move |state, value, method, args| {
        budget::of(state, budget).walk_all(args)?;
        filters::check_method(state, budget, value, method, args)?;
        let result = pycompat::unknown_method_callback(state, value, method, args)?;
        budget::of(state, budget).admit(result)
    });
    operators::register(&mut env, budget);
    filters::register(&mut env, budget);
    for (name, function) in [
        ("namespace", Value::from_function(minijinja::functions::namespace)),
        ("dict", Value::from_function(minijinja::functions::dict)),
    ] {
        env.add_function(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let made = function.call(state, &args.into_values())?;
            budget::of(state, budget).walk(&made)?;
            Ok::<_, Error>(made)
        });
    }
    env.remove_global("debug");
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    env.add_function("strftime_now", move |state: &mut State, format: &str| {
        budget::of(state, budget).charge(40 * format.len() as u64)?;
        Ok::<_, Error>(strftime::format(now, format))
    });
    env
}

#[cfg(test)]
mod tests;
