//! Snapshots of the stages behind the e-graph: the rings of a graph's values, and the program's instructions.

use std::path::Path;

use marill_compiler::ir::Owner;
use marill_compiler::ir::text::{TextOptions, parse, print};
use marill_compiler::report::with_encodings;
use marill_compiler::{Diagnostic, Request, lower_and_check, ownership, rewrite};
use marill_program::{Instruction, Suite, ValidProgram};

fn snapshot(folder: &str, name: &str) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let text = std::fs::read_to_string(files.join(folder).join(format!("{name}.ir"))).unwrap();
    let mut graph = parse(&text).unwrap();
    ownership::assign(&mut graph, &Default::default()).unwrap();
    let (graph, _) = rewrite::rewrite(graph, &Default::default()).unwrap();
    let (lowered, program) =
        lower_and_check(&graph, &Request { suite: Suite::Dealer, ..Request::default() }, name).unwrap();
    let graph = with_encodings(&graph, &lowered, &program);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(files.join("lower"));
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| {
        insta::assert_snapshot!(format!("{name}_encodings"), print(&graph, TextOptions { names: false }));
        insta::assert_snapshot!(format!("{name}_program"), program.to_string());
    });
}

#[test]
fn post_norm() {
    snapshot("rewrite", "post_norm");
}

#[test]
fn attention() {
    snapshot("lower", "attention");
}

/// The program of a graph whose input is the server's.
fn of_the_server(text: &str) -> Result<ValidProgram, Diagnostic> {
    let mut graph = parse(text).unwrap();
    ownership::assign(&mut graph, &[("x".to_owned(), Owner::Server)].into()).unwrap();
    lower_and_check(&graph, &Request::default(), "model").map(|(_, program)| program)
}

#[test]
fn truth_values_are_neither_revealed_nor_shared() {
    let revealed = "%0 = input \"x\" : bool[2]\noutput \"y\" = %0 reveal=client\n";
    let error = of_the_server(revealed).unwrap_err();
    assert_eq!((error.code(), error.node.as_str()), ("not-on-shares", "y"));
    let joined = "%0 = input \"x\" : bool[2]\n%1 = input \"z\" : bool[2]\n\
                  %2 = concat{axis=0}(%0, %1) : bool[4]\noutput \"y\" = %2 reveal=client\n";
    assert_eq!(of_the_server(joined).unwrap_err().code(), "not-on-shares");
    let to_itself = "%0 = input \"x\" : bool[2]\noutput \"y\" = %0 reveal=server\n";
    assert!(of_the_server(to_itself).is_ok());
}

#[test]
fn names_of_constants_are_printed_characters() {
    let text = "%0 = input \"x\" : f32[2]\n%1 = constant \" a\\u{17}b\" : f32[2] [1, 2] @server\n\
                %2 = constant \"\\u{17}\" : f32[2] [3, 4] @public\n%3 = mul(%0, %1) : f32[2]\n\
                %4 = mul(%3, %2) : f32[2]\noutput \"y\" = %4 reveal=client\n";
    let program = of_the_server(text).unwrap();
    let names = (0..program.len()).filter_map(|at| match program.instruction(at) {
        Instruction::Constant(constant) => Some(constant.name.as_str()),
        _ => None,
    });
    assert_eq!(names.collect::<Vec<_>>(), ["a?b", "?"]);
}

#[test]
fn norms_of_rows_without_elements_are_lowered() {
    for norm in ["rms_norm{epsilon=0.5}(%0, %1)", "layer_norm{epsilon=0.5}(%0, %1, %1)"] {
        let text = format!(
            "%0 = input \"x\" : f32[2,0]\n%1 = constant \"gain\" : f32[0] []\n%2 = {norm} : f32[2,0]\n\
             output \"y\" = %2 reveal=client\n"
        );
        assert!(of_the_server(&text).is_ok(), "{norm}");
    }
}

#[test]
fn what_is_added_to_a_variance_may_be_out_of_range() {
    for epsilon in ["inf", "1e38", "0", "-1"] {
        let text = format!(
            "%0 = input \"x\" : f32[1,2]\n%1 = constant \"gain\" : f32[2] [1, 2]\n\
             %2 = rms_norm{{epsilon={epsilon}}}(%0, %1) : f32[1,2]\noutput \"y\" = %2 reveal=client\n"
        );
        // Whether it works does not matter, if it ends well.
        let _ = of_the_server(&text);
    }
}

#[test]
fn shared_integers_are_neither_divided_nor_rooted() {
    let lowered = |op: &str, other: &str| {
        let text = format!(
            "%0 = input \"x\" : i64[2]\n%1 = input \"z\" : i64[2]\n%2 = add(%0, %1) : i64[2]\n\
             %3 = constant \"c\" : i64[] [{other}] @public\n%4 = {op} : i64[2]\noutput \"y\" = %4 reveal=client\n"
        );
        of_the_server(&text).map_err(|error| error.code())
    };
    assert_eq!(lowered("div(%2, %3)", "2").err(), Some("not-on-shares"));
    assert_eq!(lowered("div(%2, %1)", "2").err(), Some("not-on-shares"));
    assert_eq!(lowered("pow(%2, %3)", "-1").err(), Some("not-on-shares"));
    assert!(lowered("mul(%2, %3)", "2").is_ok() && lowered("pow(%2, %3)", "2").is_ok());
}

#[test]
fn softmax_of_no_rows_is_lowered() {
    let text = "%0 = input \"x\" : f32[0,2,2]\n%1 = softmax{axis=2}(%0) : f32[0,2,2]\noutput \"y\" = %1 reveal=client\n";
    assert!(of_the_server(text).is_ok());
}
