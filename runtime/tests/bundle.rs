//! Bundles on disk: what is found, and what is said about what is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use marill_plaintext::Tensor;
use marill_program::plan::Plan;
use marill_program::schema::*;
use marill_program::{Owner, Target, ValidProgram};
use marill_runtime::bundle::{Bundle, PRIVATE_FILE, PROGRAM_FILE, PUBLIC_FILE};
use marill_runtime::error::{InputFault, RunError};
use marill_runtime::executor::constants::Constants;
use marill_runtime::sharing::Party;
use safetensors::tensor::{Dtype, TensorView, serialize};

fn program() -> ValidProgram {
    let constants = [
        ("gain", Owner::Public, "f32[2,2]"),
        ("picks", Owner::Public, "i64[3]"),
        ("keep", Owner::Public, "bool[2]"),
        ("w", Owner::Server, "f32[2]"),
    ];
    let step = |(name, owner, ty): (&str, Owner, &str)| Step {
        instruction: Some(Instruction::Constant(Constant {
            name: name.to_owned(),
            owner: owner as i32,
            ty: ty.to_owned(),
        })),
        group: 0,
    };
    let instructions = constants.into_iter().map(step).collect();
    ValidProgram::new(Program { version: VERSION, instructions, ..Program::default() }).unwrap()
}

type File<'a> = BTreeMap<&'a str, (Dtype, Vec<usize>, Vec<u8>)>;

fn public() -> File<'static> {
    let gain = [1.5f32, -2.0, 0.0, 1e-3].iter().flat_map(|v| v.to_le_bytes()).collect();
    let picks = [3i64, -1, i64::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
    BTreeMap::from([
        ("gain", (Dtype::F32, vec![2, 2], gain)),
        ("picks", (Dtype::I64, vec![3], picks)),
        ("keep", (Dtype::BOOL, vec![2], vec![1, 0])),
    ])
}

fn bytes(file: &File<'_>) -> Vec<u8> {
    let views: Vec<(&str, TensorView<'_>)> = file
        .iter()
        .map(|(name, (dtype, shape, data))| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()))
        .collect();
    serialize(views, None).unwrap()
}

fn write(directory: &Path, public: &[u8]) {
    let w = [0.5f32, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(directory.join(PROGRAM_FILE), program().encode()).unwrap();
    fs::write(directory.join(PUBLIC_FILE), public).unwrap();
    let private = bytes(&BTreeMap::from([("w", (Dtype::F32, vec![2], w))]));
    fs::write(directory.join(PRIVATE_FILE), private).unwrap();
}

#[test]
fn constants_come_as_they_were_stored() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &bytes(&public()));
    let bundle = Bundle::open(directory.path(), Party::Server).unwrap();
    assert_eq!(bundle.program_bytes(), program().encode());
    assert_eq!(bundle.constant(0).unwrap(), Tensor::f32([2, 2], vec![1.5, -2.0, 0.0, 1e-3]).unwrap());
    assert_eq!(bundle.constant(1).unwrap(), Tensor::i64([3], vec![3, -1, i64::MIN]).unwrap());
    assert_eq!(bundle.constant(2).unwrap(), Tensor::bool([2], vec![true, false]).unwrap());
    assert_eq!(bundle.constant(3).unwrap(), Tensor::f32([2], vec![0.5, 4.0]).unwrap());
    fs::remove_file(directory.path().join(PRIVATE_FILE)).unwrap();
    let client = Bundle::open(directory.path(), Party::Client).unwrap();
    assert!(client.constant(2).is_ok());
    assert!(matches!(client.constant(3), Err(RunError::BadInput { .. })));
    let error = Bundle::open(directory.path(), Party::Server).err().unwrap();
    assert!(matches!(&error, RunError::File { path, .. } if path.ends_with(PRIVATE_FILE)), "{error}");
    assert!(error.to_string().contains("'w'"), "{error}");
}

#[test]
fn constants_that_do_not_fit_are_named_with_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let fault = |file: &File<'_>| {
        write(directory.path(), &bytes(file));
        match Bundle::open(directory.path(), Party::Client).err().unwrap() {
            RunError::BadInput { name, reason } => {
                assert!(name.contains("'gain'") && name.contains(PUBLIC_FILE), "{name}");
                reason
            }
            other => panic!("{other}"),
        }
    };
    let mut file = public();
    file.remove("gain");
    assert_eq!(fault(&file), InputFault::Missing);
    file.insert("gain", (Dtype::F32, vec![4], vec![0; 16]));
    assert_eq!(fault(&file), InputFault::Shape { expected: vec![2, 2], found: vec![4] });
    file.insert("gain", (Dtype::F16, vec![2, 2], vec![0; 8]));
    assert!(matches!(fault(&file), InputFault::ElementType { .. }));
}

#[test]
fn damaged_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let whole = bytes(&public());
    for end in 0..whole.len() {
        write(directory.path(), &whole[..end]);
        let error = Bundle::open(directory.path(), Party::Client).err().unwrap();
        assert!(
            matches!(&error, RunError::File { path, .. } if path.ends_with(PUBLIC_FILE)),
            "{end}: {error}"
        );
    }
    for at in 0..whole.len().min(200) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x11;
        write(directory.path(), &flipped);
        // Whatever the header says now: an error, or the tensors that it describes.
        if let Ok(bundle) = Bundle::open(directory.path(), Party::Client) {
            assert!((0..3).all(|at| bundle.constant(at).is_ok()));
        }
    }
    write(directory.path(), &whole);
    fs::write(directory.path().join(PROGRAM_FILE), b"not a program").unwrap();
    assert!(matches!(Bundle::open(directory.path(), Party::Client), Err(RunError::BadProgram { .. })));
    fs::remove_file(directory.path().join(PROGRAM_FILE)).unwrap();
    assert!(matches!(Bundle::open(directory.path(), Party::Client), Err(RunError::File { .. })));
}

#[test]
fn tensors_that_online_instructions_read_are_loaded_once() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &bytes(&public()));
    let mut program = program().program().clone();
    let mut push = |instruction| program.instructions.push(Step { instruction: Some(instruction), group: 0 });
    push(Instruction::Input(Input {
        name: "x".to_owned(),
        owner: Owner::Client as i32,
        ty: "f32[2,2]".to_owned(),
    }));
    push(Instruction::Plain(Plain { op: "add".to_owned(), args: vec![4, 0] }));
    program.outputs.push(Output { name: "y".to_owned(), value: 5, to: Target::Client as i32 });
    let program = ValidProgram::new(program).unwrap();
    fs::write(directory.path().join(PROGRAM_FILE), program.encode()).unwrap();

    let bundle = Bundle::open(directory.path(), Party::Client).unwrap();
    let constants = Constants::new(&bundle, &Plan::new(&program), Party::Client).unwrap();
    let mut zeroed = public();
    zeroed.values_mut().for_each(|(_, _, data)| data.fill(0));
    fs::write(directory.path().join(PUBLIC_FILE), bytes(&zeroed)).unwrap();
    let gain = Tensor::f32([2, 2], vec![1.5, -2.0, 0.0, 1e-3]).unwrap();
    assert_eq!(constants.plain(0).unwrap(), Some(gain), "read online, so held since setup");
    assert_eq!(constants.plain(1).unwrap(), Some(Tensor::i64([3], vec![0; 3]).unwrap()), "left in its file");
    assert_eq!(constants.plain(3).unwrap(), None, "the server's");
}
