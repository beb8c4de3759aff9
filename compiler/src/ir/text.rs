//! The graph as text, one value a line, printed and parsed.
//!
//! ```text
//! %0 = input "input_ids" : i64[1,16] @client
//! %1 = constant "wte.weight" : f32[128,64] #0f3c5a9912ab34cd @public
//! %2 = gather{axis=0}(%1, %0) : f32[1,16,64] @client range=[-1,2] enc=40.16 "name"
//! output "logits" = %2 reveal=client
//! ```
//! Small constants are written out (`[1, 2.5]`, `splat 1`), others as the first 16 hexadecimal digits of their
//! digest: parsing such a line gives a constant that is absent.

use std::fmt::Write as _;

use super::{Constant, Encoding, Graph, NodeKind, Owner, Range, ValueId};
use marill_plaintext::{DType, Op, OpError, Tensor, TensorType};
use ndarray::{ArcArray, IxDyn};

const MAX_WRITTEN_ELEMENTS: usize = 16;
const MAX_SPLAT_ELEMENTS: usize = 1 << 22;

/// What to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Whether operations carry the exporter's names. Inputs, constants and outputs always do.
    pub names: bool,
}

/// Prints the graph; values are numbered by their place in the topological order.
pub fn print(graph: &Graph, options: TextOptions) -> String {
    let order = graph.topological();
    let places: std::collections::BTreeMap<ValueId, usize> =
        order.iter().enumerate().map(|(place, &id)| (id, place)).collect();
    let mut text = String::new();
    for &id in &order {
        let node = graph.node(id);
        let mut line = format!("%{} = ", places[&id]);
        match &node.kind {
            NodeKind::Input => line.push_str(&format!("input {} : {}", quote(&node.name), node.facts.ty)),
            NodeKind::Constant(constant) => {
                let value = constant_text(constant);
                line.push_str(&format!("constant {} : {} {value}", quote(&node.name), node.facts.ty));
            }
            NodeKind::Apply(op) => {
                let args: Vec<String> =
                    graph.args(id).iter().map(|arg| format!("%{}", places[arg])).collect();
                line.push_str(&format!("{op}({}) : {}", args.join(", "), node.facts.ty));
            }
        }
        if let Some(owner) = node.facts.owner {
            line.push_str(&format!(" @{}", owner_text(owner)));
        }
        if let Some(Range { min, max }) = node.facts.range {
            line.push_str(&format!(" range=[{min},{max}]"));
        }
        if let Some(Encoding { width_bits, frac_bits }) = node.facts.encoding {
            line.push_str(&format!(" enc={width_bits}.{frac_bits}"));
        }
        if options.names && matches!(node.kind, NodeKind::Apply(_)) {
            line.push(' ');
            line.push_str(&quote(&node.name));
        }
        text.push_str(&line);
        text.push('\n');
    }
    for output in &graph.outputs {
        let (name, place) = (quote(&output.name), places[&output.value]);
        text.push_str(&format!("output {name} = %{place} reveal={}\n", owner_text(output.reveal_to)));
    }
    text
}

fn owner_text(owner: Owner) -> &'static str {
    match owner {
        Owner::Public => "public",
        Owner::Client => "client",
        Owner::Server => "server",
        Owner::Shared => "shared",
    }
}

fn quote(name: &str) -> String {
    let mut quoted = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn constant_text(constant: &Constant) -> String {
    let elements = constant.elements();
    if elements <= MAX_SPLAT_ELEMENTS
        && let Ok(tensor) = constant.load()
    {
        let mut written = tensor_elements(&tensor);
        if elements > 1 && is_uniform(&tensor) {
            return format!("splat {}", written.next().unwrap_or_default());
        }
        if elements <= MAX_WRITTEN_ELEMENTS {
            return format!("[{}]", written.collect::<Vec<_>>().join(", "));
        }
    }
    format!("#{}", constant.short_digest())
}

fn is_uniform(tensor: &Tensor) -> bool {
    fn same<T: Copy + PartialEq>(mut elements: impl Iterator<Item = T>) -> bool {
        elements.next().is_none_or(|first| elements.all(|x| x == first))
    }
    match tensor {
        Tensor::F32(array) => same(array.iter().map(|x| x.to_bits())),
        Tensor::I64(array) => same(array.iter()),
        Tensor::Bool(array) => same(array.iter()),
    }
}

fn tensor_elements(tensor: &Tensor) -> Box<dyn Iterator<Item = String> + '_> {
    match tensor {
        Tensor::F32(array) => Box::new(array.iter().map(|x| {
            let text = format!("{x:?}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        })),
        Tensor::I64(array) => Box::new(array.iter().map(|x| x.to_string())),
        Tensor::Bool(array) => Box::new(array.iter().map(|x| x.to_string())),
    }
}

/// Why text is not a graph.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: ParseProblem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum ParseProblem {
    /// Something else stands where this is needed.
    #[error("expected {expected}, found \"{found}\"")]
    Expected {
        /// What is needed.
        expected: &'static str,
        /// The rest of the line.
        found: String,
    },
    /// A value is used before its line.
    #[error("%{0} is not defined above")]
    Undefined(usize),
    /// Two lines define one value.
    #[error("%{0} is defined twice")]
    Redefined(usize),
    /// The operation is unknown or does not accept its operands.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The written type is not what the operation gives.
    #[error("written as {written}, but is {inferred}")]
    Type {
        /// In the text.
        written: TensorType,
        /// By the operation.
        inferred: TensorType,
    },
    /// A constant with another number of elements than its type has.
    #[error("{found} elements written for {ty}")]
    Elements {
        /// The type.
        ty: TensorType,
        /// Elements in the text.
        found: usize,
    },
}

/// Parses what [`print`] writes. Empty lines and lines that start with `//` are skipped.
///
/// # Errors
/// At the first line that is not of the form.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut graph = Graph::default();
    let mut values = std::collections::BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        let mut cursor = Cursor(line);
        parse_line(&mut cursor, &mut graph, &mut values)
            .map_err(|problem| ParseError { line: index + 1, problem })?;
    }
    Ok(graph)
}

type Values = std::collections::BTreeMap<usize, ValueId>;

fn parse_line(cursor: &mut Cursor<'_>, graph: &mut Graph, values: &mut Values) -> Result<(), ParseProblem> {
    if cursor.eat("output") {
        let name = cursor.quoted()?;
        cursor.expect("=", "=")?;
        let value = cursor.value(values)?;
        cursor.expect("reveal=", "reveal=")?;
        let reveal_to = cursor.owner()?;
        graph.add_output(name, value, reveal_to);
        return cursor.end();
    }
    let place = cursor.place()?;
    if values.contains_key(&place) {
        return Err(ParseProblem::Redefined(place));
    }
    cursor.expect("=", "=")?;
    let id = if cursor.eat("input ") {
        let name = cursor.quoted()?;
        let ty = cursor.ty()?;
        graph.add_input(name, ty)
    } else if cursor.eat("constant ") {
        let name = cursor.quoted()?;
        let ty = cursor.ty()?;
        let constant = cursor.constant(ty)?;
        graph.add_constant(name, constant)
    } else {
        let Some((op, rest)) = cursor.0.split_once("(%") else {
            return Err(cursor.expected("an operation on values"));
        };
        let op: Op = op.trim().parse()?;
        let Some((args, rest)) = rest.split_once(')') else {
            return Err(cursor.expected("a closing bracket"));
        };
        let mut arg_ids = Vec::new();
        for (position, arg) in args.split(',').enumerate() {
            let arg = arg.trim();
            let digits = if position == 0 { Some(arg) } else { arg.strip_prefix('%') };
            let place = digits
                .and_then(|digits| digits.parse().ok())
                .ok_or_else(|| ParseProblem::Expected { expected: "a value", found: arg.to_owned() })?;
            arg_ids.push(*values.get(&place).ok_or(ParseProblem::Undefined(place))?);
        }
        *cursor = Cursor(rest);
        let written = cursor.ty()?;
        let id = graph.apply(op, &arg_ids, "")?;
        if *graph.ty(id) != written {
            return Err(ParseProblem::Type { written, inferred: graph.ty(id).clone() });
        }
        id
    };
    values.insert(place, id);
    let node = graph.node_mut(id);
    if cursor.eat("@") {
        node.facts.owner = Some(cursor.owner()?);
    }
    if cursor.eat("range=[") {
        let min = cursor.number(',', "a lower bound")?;
        let max = cursor.number(']', "an upper bound")?;
        node.facts.range = Some(Range { min, max });
    }
    if cursor.eat("enc=") {
        let width_bits = cursor.number('.', "width bits")?;
        let frac_bits = cursor.number(' ', "fraction bits")?;
        node.facts.encoding = Some(Encoding { width_bits, frac_bits });
    }
    if cursor.peek('"') {
        node.name = cursor.quoted()?;
    }
    cursor.end()
}

/// The rest of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn expected(&self, expected: &'static str) -> ParseProblem {
        ParseProblem::Expected { expected, found: self.0.to_owned() }
    }

    fn peek(&mut self, c: char) -> bool {
        self.0 = self.0.trim_start();
        self.0.starts_with(c)
    }

    fn eat(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), ParseProblem> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn end(&mut self) -> Result<(), ParseProblem> {
        if self.0.trim().is_empty() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    /// The text up to `end`, or to the end of the line if `end` is a space; consumes both.
    fn until(&mut self, end: char, expected: &'static str) -> Result<&'a str, ParseProblem> {
        self.0 = self.0.trim_start();
        match self.0.split_once(end) {
            Some((token, rest)) => {
                self.0 = rest;
                Ok(token)
            }
            None if end == ' ' => Ok(std::mem::take(&mut self.0)),
            None => Err(self.expected(expected)),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, end: char, expected: &'static str) -> Result<T, ParseProblem> {
        let before = self.0;
        let token = self.until(end, expected)?;
        token.trim().parse().map_err(|_| ParseProblem::Expected { expected, found: before.to_owned() })
    }

    fn place(&mut self) -> Result<usize, ParseProblem> {
        self.expect("%", "a value")?;
        self.number(' ', "a value's number")
    }

    fn value(&mut self, values: &Values) -> Result<ValueId, ParseProblem> {
        let place = self.place()?;
        values.get(&place).copied().ok_or(ParseProblem::Undefined(place))
    }

    fn owner(&mut self) -> Result<Owner, ParseProblem> {
        for owner in [Owner::Public, Owner::Client, Owner::Server, Owner::Shared] {
            if self.eat(owner_text(owner)) {
                return Ok(owner);
            }
        }
        Err(self.expected("public, client, server or shared"))
    }

    fn quoted(&mut self) -> Result<String, ParseProblem> {
        self.expect("\"", "a quoted name")?;
        let mut name = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(name);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => name.push('\n'),
                    Some((_, 'u')) => {
                        let code: String =
                            chars.by_ref().map(|(_, c)| c).skip(1).take_while(|&c| c != '}').collect();
                        let c = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                        name.push(c.ok_or_else(|| self.expected("an escaped character"))?);
                    }
                    Some((_, escaped)) => name.push(escaped),
                    None => break,
                },
                c => name.push(c),
            }
        }
        Err(self.expected("a closing quote"))
    }

    fn ty(&mut self) -> Result<TensorType, ParseProblem> {
        self.expect(":", ": and a type")?;
        let found = self.0.trim_start();
        let token = self.until(' ', "a type")?;
        token.parse().map_err(|_| ParseProblem::Expected { expected: "a type", found: found.to_owned() })
    }

    fn constant(&mut self, ty: TensorType) -> Result<Constant, ParseProblem> {
        let elements = ty.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if self.eat("#") {
            let digits = self.until(' ', "a digest")?;
            let prefix = u64::from_str_radix(digits, 16).map_err(|_| self.expected("a digest"))?;
            return Ok(Constant::absent(ty, prefix.to_be_bytes()));
        }
        if self.eat("splat ") {
            let token = self.until(' ', "a number")?;
            return match elements {
                Some(count) if count <= MAX_SPLAT_ELEMENTS => self.tensor(ty, &vec![token; count]),
                _ => Err(self.expected("a smaller constant")),
            };
        }
        self.expect("[", "#digest, splat or [elements]")?;
        let list = self.until(']', "a closing bracket")?;
        let tokens: Vec<&str> = list.split(',').map(str::trim).filter(|token| !token.is_empty()).collect();
        if elements != Some(tokens.len()) {
            return Err(ParseProblem::Elements { ty, found: tokens.len() });
        }
        self.tensor(ty, &tokens)
    }

    fn tensor(&self, ty: TensorType, tokens: &[&str]) -> Result<Constant, ParseProblem> {
        let bad = || self.expected("elements of the constant's type");
        let tensor = match ty.dtype {
            DType::F32 => array(&ty, tokens).map(Tensor::F32),
            DType::I64 => array(&ty, tokens).map(Tensor::I64),
            DType::Bool => array(&ty, tokens).map(Tensor::Bool),
        };
        Ok(Constant::inline(tensor.ok_or_else(bad)?))
    }
}

fn array<T: std::str::FromStr + Clone>(ty: &TensorType, tokens: &[&str]) -> Option<ArcArray<T, IxDyn>> {
    let elements: Option<Vec<T>> = tokens.iter().map(|token| token.parse().ok()).collect();
    ArcArray::from_shape_vec(IxDyn(&ty.shape), elements?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Graph {
        let mut graph = Graph::default();
        let ty = |shape: &[usize]| TensorType { dtype: DType::F32, shape: shape.to_vec() };
        let x = graph.add_input("x \"quoted\" \\ \n \u{1}", ty(&[2, 20]));
        let ids = graph.add_input("ids", TensorType { dtype: DType::I64, shape: vec![] });
        let weight = Tensor::f32(vec![20, 3], (0..60).map(|i| i as f32 / 7.0).collect()).unwrap();
        let weight = graph.add_constant("w", weight);
        let ones = graph.add_constant("ones", Tensor::f32(vec![30], vec![1.0; 30]).unwrap());
        let odd = vec![-0.0, f32::NEG_INFINITY, f32::NAN, -3.402_823_5e38, 1e-5, 0.1];
        let odd = graph.add_constant("odd", Tensor::f32(vec![2, 3], odd).unwrap());
        let product = graph.apply(Op::MatMul, &[x, weight], "product").unwrap();
        let sum = graph.apply(Op::Add, &[product, odd], "sum").unwrap();
        let widened = graph.apply(Op::Reshape { shape: vec![6, 1] }, &[sum], "wide").unwrap();
        let scaled = graph.apply(Op::Mul, &[widened, ones], "scaled").unwrap();
        let mean = graph
            .apply(Op::ReduceMean { axes: vec![0, 1], keepdims: false }, &[scaled], "mean \"m\"")
            .unwrap();
        let facts = &mut graph.node_mut(x).facts;
        facts.owner = Some(Owner::Client);
        facts.range = Some(Range { min: -1.25, max: f64::INFINITY });
        facts.encoding = Some(Encoding { width_bits: 40, frac_bits: 16 });
        graph.add_output("mean", mean, Owner::Client);
        graph.add_output("ids", ids, Owner::Public);
        graph
    }

    #[test]
    fn printing_and_parsing_are_inverse() {
        for options in [TextOptions { names: false }, TextOptions { names: true }] {
            let printed = print(&sample(), options);
            let parsed = parse(&printed).unwrap();
            assert_eq!(print(&parsed, options), printed);
            crate::ir::verify(&parsed).unwrap();
        }
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let printed = print(&sample(), TextOptions { names: true });
        insta::assert_snapshot!(printed, @r##"
        %0 = input "x \"quoted\" \\ \n \u{1}" : f32[2,20] @client range=[-1.25,inf] enc=40.16
        %1 = input "ids" : i64[]
        %2 = constant "w" : f32[20,3] #19eda98a2ab2a72c
        %3 = mat_mul(%0, %2) : f32[2,3] "product"
        %4 = constant "odd" : f32[2,3] [-0, -inf, NaN, -3.4028235e38, 1e-5, 0.1]
        %5 = add(%3, %4) : f32[2,3] "sum"
        %6 = reshape{shape=[6,1]}(%5) : f32[6,1] "wide"
        %7 = constant "ones" : f32[30] splat 1
        %8 = mul(%6, %7) : f32[6,30] "scaled"
        %9 = reduce_mean{axes=[0,1],keepdims=false}(%8) : f32[] "mean \"m\""
        output "mean" = %9 reveal=client
        output "ids" = %1 reveal=public
        "##);
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        let first = "%0 = input \"x\" : f32[2]\n";
        for (line, expected) in [
            ("%1 = neg(%7) : f32[2]", "line 2: %7 is not defined above"),
            ("%0 = neg(%0) : f32[2]", "line 2: %0 is defined twice"),
            ("%1 = neg(%0) : f32[3]", "line 2: written as f32[3], but is f32[2]"),
            ("%1 = constant \"c\" : f32[3] [1, 2]", "line 2: 2 elements written for f32[3]"),
            (
                "output \"o\" = %0 reveal=all",
                "line 2: expected public, client, server or shared, found \"all\"",
            ),
            ("%1 = input \"y\" f32[2]", "line 2: expected : and a type, found \"f32[2]\""),
            ("%1 = input \"y : f32[2]", "line 2: expected a closing quote, found \"y : f32[2]\""),
            ("%1 = neg(%0) : f32[2] what", "line 2: expected the end of the line, found \"what\""),
        ] {
            assert_eq!(parse(&format!("{first}{line}")).unwrap_err().to_string(), expected);
        }
        for line in ["%1 = nonsense(%0) : f32[2]", "%1 = matmul(%0) : f32[2]"] {
            assert!(matches!(parse(&format!("{first}{line}")).unwrap_err().problem, ParseProblem::Op(_)));
        }
        let huge = "%1 = constant \"c\" : f32[1000000,1000000,1000000,1000000] splat 0";
        assert!(parse(huge).is_err());
    }
}
