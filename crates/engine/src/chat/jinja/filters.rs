//! minijinja's filters with their cost counted, and those whose results can be larger than what they are given.

use minijinja::filters as builtin;
use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::budget::{self, Budget, Exhausted, text_len};
use super::json;

/// Widest indentation and field of a formatted text.
const MAX_WIDTH: u64 = 1000;

pub(super) fn register(env: &mut Environment<'static>, budget: Budget) {
    let mut add = |name: &'static str, filter: Value| {
        env.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            budget::of(state, budget).walk_all(&args)?;
            check_filter(state, budget, name, &args)?;
            let result = filter.call(state, &args)?;
            budget::of(state, budget).admit(result)
        });
    };
    macro_rules! wrap {
        ($($name:literal $filter:ident;)+) => { $(add($name, Value::from_function(builtin::$filter));)+ };
    }
    wrap! {
        "abs" abs; "attr" attr; "batch" batch; "bool" bool; "capitalize" capitalize; "chain" chain; "count" length;
        "dictsort" dictsort; "first" first; "float" float; "format" format; "groupby" groupby; "indent" indent;
        "int" int; "items" items; "join" join; "last" last; "length" length; "lines" lines; "list" list; "lower" lower;
        "map" map; "max" max; "min" min; "pprint" pprint; "reject" reject; "rejectattr" rejectattr; "replace" replace;
        "reverse" reverse; "round" round; "select" select; "selectattr" selectattr; "slice" slice; "sort" sort;
        "split" split; "string" string; "sum" sum; "title" title; "trim" trim; "unique" unique; "upper" upper; "zip" zip;
    }
    // Their result is one of their arguments.
    env.add_filter("default", builtin::default);
    env.add_filter("d", builtin::default);
    env.add_filter("safe", |value: Value| value);
    env.add_filter(
        "tojson",
        move |state: &mut State, value: Value, indent: Option<Value>, kwargs: Kwargs| {
            let options = json::Options::from_args(indent, &kwargs)?;
            let budget = budget::of(state, budget);
            budget.walk(&value)?;
            json::to_json(budget, &value, &options).map(Value::from)
        },
    );
}

/// Pays beforehand for a filter whose result can be larger than what it is given.
fn check_filter(state: &mut State, budget: Budget, name: &str, args: &[Value]) -> Result<(), Error> {
    let bytes = match (name, args) {
        ("replace", [text, from, to, ..]) => replaced_len(text, from, Some(to)),
        ("join", [items, rest @ ..]) => {
            let joiner = rest.iter().filter(|arg| !arg.is_kwargs()).map(text_len).max().unwrap_or(0);
            let joiner = joiner.max(longest_kwarg(rest));
            joined_len(items, joiner)?
        }
        ("indent", [text, rest @ ..]) => {
            let text = text.as_str().unwrap_or("");
            let width = rest.iter().filter_map(Value::as_i64).max().unwrap_or(4) as u64;
            let width = width.max(largest_kwarg(rest));
            text.len() as u64 + (text.matches('\n').count() as u64 + 1).saturating_mul(width)
        }
        ("format", [format, args @ ..]) => formatted_len(format, args)?,
        ("batch" | "slice", [_, count, ..]) => count.as_i64().unwrap_or(0).unsigned_abs().saturating_mul(32),
        ("round", [_, precision, ..]) if precision.as_i64().unwrap_or(0).unsigned_abs() > MAX_WIDTH => {
            u64::MAX
        }
        _ => return Ok(()),
    };
    budget::of(state, budget).charge(bytes)
}

/// Pays beforehand for a method whose result can be larger than what it is given.
pub(super) fn check_method(
    state: &mut State,
    budget: Budget,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<(), Error> {
    let bytes = match (method, args) {
        ("replace", [from, rest @ ..]) => replaced_len(value, from, rest.first()),
        ("join", [items, ..]) => joined_len(items, text_len(value))?,
        ("format", args) => formatted_len(value, args)?,
        _ => return Ok(()),
    };
    budget::of(state, budget).charge(bytes)
}

fn replaced_len(text: &Value, from: &Value, to: Option<&Value>) -> u64 {
    let (Some(text), Some(from)) = (text.as_str(), from.as_str()) else { return 0 };
    let to = to.map_or(0, text_len);
    (text.matches(from).count() as u64).saturating_mul(to).saturating_add(text.len() as u64)
}

fn joined_len(items: &Value, joiner: u64) -> Result<u64, Error> {
    if items.as_str().is_none() && items.kind() == ValueKind::Iterable && items.len().is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "cannot join an iterator of unknown length"));
    }
    let mut bytes = 0u64;
    for item in items.try_iter()?.checked() {
        bytes = bytes.saturating_add(text_len(&item?)).saturating_add(joiner);
    }
    Ok(bytes)
}

/// A bound for what a format string gives: its fields are as wide as the numbers in it say.
fn formatted_len(format: &Value, args: &[Value]) -> Result<u64, Error> {
    let text = format.as_str().unwrap_or("");
    let numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widest = numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).max().unwrap_or(0);
    // A width can be an argument too: `%*d`, `{:{}}`.
    let widest = args.iter().filter_map(Value::as_i64).map(i64::unsigned_abs).fold(widest, |widest, n| {
        if text.contains('*') || text.contains(":{") { widest.max(n) } else { widest }
    });
    if widest > MAX_WIDTH {
        return Err(Exhausted::Memory.into());
    }
    let fields = text.matches(['%', '{']).count() as u64;
    let longest = args.iter().map(text_len).max().unwrap_or(0).max(longest_kwarg(args));
    Ok((text.len() as u64).saturating_add(fields.saturating_mul(longest + widest + 40)))
}

fn kwargs(args: &[Value]) -> impl Iterator<Item = Value> + '_ {
    let maps = args.iter().filter(|arg| arg.is_kwargs()).filter_map(Value::as_object);
    maps.flat_map(|map| map.try_iter_pairs().into_iter().flatten()).map(|(_, value)| value)
}

fn longest_kwarg(args: &[Value]) -> u64 {
    kwargs(args).map(|value| text_len(&value)).max().unwrap_or(0)
}

fn largest_kwarg(args: &[Value]) -> u64 {
    kwargs(args).filter_map(|value| value.as_i64()).max().unwrap_or(0).max(0) as u64
}
