//! Jinja as Hugging Face Transformers sets it up for chat templates, within bounds.
//!
//! A template comes with a model file, so it is hostile until rendered. Three bounds hold it: *fuel* counts instructions;
//! a *budget* counts the bytes of the values that instructions make; and values nest no deeper than
//! [`budget::MAX_DEPTH`], since everything that walks them recurses. minijinja offers only the first. For the others, its
//! instructions that make or walk values (`+`, `~`, `[…]`, `==`, slices, …) are replaced one for one by operators of our
//! own, registered as filters under names that no template can spell; filters, functions and methods are wrapped.

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

/// Bytes of literal text that a rendering may write, of which only the number of writes can be limited.
const MAX_RAW: u64 = 1 << 28;

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
    /// Bytes of the longest literal text.
    longest_raw: u64,
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
        let (mut instructions, mut blocks) = generator.finish();
        let parts = std::iter::once(&mut instructions).chain(blocks.values_mut());
        let longest_raw = parts.map(guard).max().unwrap_or(0);
        Ok(Self { instructions, blocks, longest_raw })
    }

    /// Renders with `variables`; `now` is the time in seconds since 1970, UTC.
    pub(super) fn render(&self, variables: &Value, now: i64, mut budget: Budget) -> Result<String, Error> {
        budget.fuel = budget.fuel.min(MAX_RAW / self.longest_raw.max(1));
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

/// Replaces the instructions that make or walk values by guarded operators. Returns the length of the longest literal text.
fn guard(instructions: &mut Instructions<'_>) -> u64 {
    let mut longest_raw = 0;
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        index += 1;
        let operator = match *instruction {
            Instruction::EmitRaw(text) => {
                longest_raw = longest_raw.max(text.len() as u64);
                continue;
            }
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
            Instruction::BuildList(Some(items)) => ("[]", items),
            Instruction::BuildTuple(Some(items)) => ("()", items),
            Instruction::BuildMap(pairs) => ("{}", 2 * pairs),
            _ => continue,
        };
        // Literals too long for an argument count are flat, and no longer than the source.
        if let Ok(arguments) = u16::try_from(operator.1) {
            *instruction = Instruction::ApplyFilter(operator.0, Some(arguments), u8::MAX);
        }
    }
    longest_raw
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
