//! The operators of Jinja with their cost counted. Types behave as in Python.

use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::budget::{self, Budget, text_len};

/// Registers the operators as filters named as [`guard`](super::guard) calls them.
pub(super) fn register(env: &mut Environment<'static>, budget: Budget) {
    let mut add = |name: &'static str, operator: fn(&mut Budget, &[Value]) -> Result<Value, Error>| {
        env.add_filter(name, move |state: &mut State, args: Rest<Value>| {
            let budget = budget::of(state, budget);
            budget.walk_all(&args)?;
            operator(budget, &args)
        });
    };
    add("+", |budget, args| sum(budget, pair(args)?));
    add("*", |budget, args| product(budget, pair(args)?));
    add("~", |budget, args| {
        let [a, b] = pair(args)?;
        budget.charge(text_len(a) + text_len(b))?;
        Ok(Value::from(format!("{a}{b}")))
    });
    add("==", |_, args| pair(args).map(|[a, b]| Value::from(a == b)));
    add("!=", |_, args| pair(args).map(|[a, b]| Value::from(a != b)));
    add(">", |_, args| pair(args).map(|[a, b]| Value::from(a > b)));
    add(">=", |_, args| pair(args).map(|[a, b]| Value::from(a >= b)));
    add("<", |_, args| pair(args).map(|[a, b]| Value::from(a < b)));
    add("<=", |_, args| pair(args).map(|[a, b]| Value::from(a <= b)));
    add("in", |_, args| contains(pair(args)?));
    add("[:]", |budget, args| match args {
        [value, start, stop, step] => slice(budget, value, [start, stop, step]),
        _ => Err(missing()),
    });
    // Every operator walks its arguments first.
    add("@", |_, _| Ok(Value::UNDEFINED));
    add("[]", |budget, args| budget.admit_new(Value::from(args.to_vec())));
    add("()", |budget, args| budget.admit_new(Value::from(Tuple::from(args.to_vec()))));
    add("{}", |budget, args| {
        let pairs = args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        budget.admit_new(Value::from_pairs(pairs))
    });
}

fn pair(args: &[Value]) -> Result<[&Value; 2], Error> {
    match args {
        [a, b] => Ok([a, b]),
        _ => Err(missing()),
    }
}

fn missing() -> Error {
    Error::from(ErrorKind::MissingArgument)
}

fn unsupported(operator: &str, [a, b]: [&Value; 2]) -> Error {
    let kind = if a.is_undefined() || b.is_undefined() {
        ErrorKind::UndefinedError
    } else {
        ErrorKind::InvalidOperation
    };
    Error::new(kind, format!("unsupported operands for {operator}: {} and {}", a.kind(), b.kind()))
}

fn sum(budget: &mut Budget, [a, b]: [&Value; 2]) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        budget.charge((x.len() + y.len()) as u64)?;
        return Ok(Value::from([x, y].concat()));
    }
    if is_list(a) && is_list(b) {
        budget.charge(32 * (a.len().unwrap_or(0) + b.len().unwrap_or(0)) as u64)?;
        let items: Vec<Value> =
            a.try_iter()?.checked().chain(b.try_iter()?.checked()).collect::<Result<_, _>>()?;
        return Ok(if a.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    arithmetic("+", [a, b], i64::checked_add, |x, y| x + y)
}

fn product(budget: &mut Budget, [a, b]: [&Value; 2]) -> Result<Value, Error> {
    let (repeated, times) = if a.is_number() { (b, a) } else { (a, b) };
    if let Some(times) = times.as_i64() {
        let times = times.max(0) as u64;
        if let Some(text) = repeated.as_str() {
            budget.charge((text.len() as u64).saturating_mul(times))?;
            return Ok(Value::from(text.repeat(times as usize)));
        }
        if is_list(repeated) {
            let items: Vec<Value> = repeated.try_iter()?.checked().collect::<Result<_, _>>()?;
            budget.charge((32 * items.len() as u64).saturating_mul(times))?;
            return Ok((0..times).flat_map(|_| items.iter().cloned()).collect());
        }
    }
    arithmetic("*", [a, b], i64::checked_mul, |x, y| x * y)
}

fn arithmetic(
    name: &str,
    [a, b]: [&Value; 2],
    integers: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let number = |value: &Value| value.is_number() || value.kind() == ValueKind::Bool;
    if !number(a) || !number(b) {
        return Err(unsupported(name, [a, b]));
    }
    let integer = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        _ if value.is_integer() => value.as_i64(),
        _ => None,
    };
    if let (Some(x), Some(y)) = (integer(a), integer(b)) {
        return integers(x, y).map(Value::from).ok_or_else(|| unsupported(name, [a, b]));
    }
    let float = |value: &Value| integer(value).map_or_else(|| f64::try_from(value.clone()), |x| Ok(x as f64));
    Ok(Value::from(floats(float(a)?, float(b)?)))
}

fn contains([item, container]: [&Value; 2]) -> Result<Value, Error> {
    let found = if let Some(text) = container.as_str() {
        let item = item.as_str().ok_or_else(|| unsupported("in", [item, container]))?;
        text.contains(item)
    } else if container.is_undefined() {
        false
    } else if let (ValueKind::Map, Some(map)) = (container.kind(), container.as_object()) {
        map.get_value(item).is_some()
    } else {
        let mut found = false;
        for candidate in container.try_iter()?.checked() {
            found |= candidate? == *item;
        }
        found
    };
    Ok(Value::from(found))
}

/// `value[start:stop:step]`, by characters or items.
fn slice(budget: &mut Budget, value: &Value, bounds: [&Value; 3]) -> Result<Value, Error> {
    let bound = |bound: &Value| match bound.is_none() || bound.is_undefined() {
        true => Ok(None),
        false => bound.as_i64().map(Some).ok_or_else(|| unsupported("[:]", [value, bound])),
    };
    let [start, stop, step] = [bound(bounds[0])?, bound(bounds[1])?, bound(bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "slice step cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        budget.charge(5 * text.len() as u64)?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(indices(chars.len(), start, stop, step).map(|i| chars[i]).collect::<String>().into());
    }
    if !is_list(value) && value.kind() != ValueKind::Iterable {
        return Err(unsupported("[:]", [value, bounds[0]]));
    }
    budget.charge(32 * value.len().unwrap_or(0) as u64)?;
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    let kept: Vec<Value> = indices(items.len(), start, stop, step).map(|i| items[i].clone()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(kept)) } else { Value::from(kept) })
}

/// The positions that a Python slice of `len` items takes.
fn indices(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let len = len as i64;
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp =
        |bound: i64| (if bound < 0 { bound.saturating_add(len) } else { bound }).clamp(lowest, highest);
    let first = start.map_or(if step > 0 { lowest } else { highest }, clamp);
    let end = stop.map_or(if step > 0 { highest } else { lowest }, clamp);
    std::iter::successors(Some(first), move |i| i.checked_add(step))
        .take_while(move |&i| if step > 0 { i < end } else { i > end })
        .map(|i| i as usize)
}

fn is_list(value: &Value) -> bool {
    value.kind() == ValueKind::Seq
}

impl Budget {
    /// Pays for the items of a list or map, but not again for what they hold.
    fn admit_new(&mut self, value: Value) -> Result<Value, Error> {
        self.charge(64 * value.len().unwrap_or(0) as u64)?;
        self.walk(&value)?;
        Ok(value)
    }
}
