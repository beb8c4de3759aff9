//! Each operation against values worked out by hand.

use marill_plaintext::{DType, GeluForm, Op, OpError, Tensor, evaluate};

fn f(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::f32(shape, data.to_vec()).unwrap()
}

fn i(shape: &[usize], data: &[i64]) -> Tensor {
    Tensor::i64(shape, data.to_vec()).unwrap()
}

/// Bools from `1` and `0`.
fn b(shape: &[usize], data: &[u8]) -> Tensor {
    Tensor::bool(shape, data.iter().map(|&x| x == 1).collect()).unwrap()
}

/// Evaluates the operation of the text `op` and compares: exactly, or f32 to 1e-6 of the larger of 1 and the value;
/// NaN equals NaN.
#[track_caller]
fn check(op: &str, args: &[Tensor], expected: Tensor) {
    let op: Op = op.parse().unwrap();
    let found = evaluate(&op, &args.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(found.ty(), expected.ty(), "{op}");
    match (found.to_f32_vec(), expected.to_f32_vec()) {
        (Ok(x), Ok(y)) => {
            let close = |(x, y): (&f32, &f32)| {
                x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= 1e-6 * y.abs().max(1.0)
            };
            assert!(x.iter().zip(&y).all(close), "{op}: {x:?}, not {y:?}");
        }
        _ => assert_eq!(found, expected, "{op}"),
    }
}

#[track_caller]
fn fails(op: &str, args: &[Tensor], fault: fn(&OpError) -> bool) {
    let op: Op = op.parse().unwrap();
    let error = evaluate(&op, &args.iter().collect::<Vec<_>>()).unwrap_err();
    assert!(fault(&error), "{op}: {error:?}");
}

const SIX: [i64; 6] = [0, 1, 2, 3, 4, 5];
const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

#[test]
fn movement() {
    let x = i(&[2, 3], &SIX);
    let y = b(&[2], &[1, 0]);
    check("reshape{shape=[3,1,2]}", std::slice::from_ref(&x), i(&[3, 1, 2], &SIX));
    check("transpose{perm=[1,0]}", std::slice::from_ref(&x), i(&[3, 2], &[0, 3, 1, 4, 2, 5]));
    check("transpose{perm=[2,0,1]}", &[i(&[1, 2, 3], &SIX)], i(&[3, 1, 2], &[0, 3, 1, 4, 2, 5]));
    check("concat{axis=1}", &[x.clone(), i(&[2, 1], &[8, 9])], i(&[2, 4], &[0, 1, 2, 8, 3, 4, 5, 9]));
    check("concat{axis=0}", &[y.clone(), y.clone(), b(&[0], &[])], b(&[4], &[1, 0, 1, 0]));
    check("slice{axis=1,start=1,end=3,step=1}", std::slice::from_ref(&x), i(&[2, 2], &[1, 2, 4, 5]));
    check("slice{axis=1,start=2,end=-1,step=-1}", std::slice::from_ref(&x), i(&[2, 3], &[2, 1, 0, 5, 4, 3]));
    check("slice{axis=1,start=2,end=-1,step=-2}", std::slice::from_ref(&x), i(&[2, 2], &[2, 0, 5, 3]));
    check("slice{axis=1,start=0,end=3,step=2}", std::slice::from_ref(&x), i(&[2, 2], &[0, 2, 3, 5]));
    check(
        "slice{axis=0,start=1,end=2,step=9223372036854775807}",
        std::slice::from_ref(&x),
        i(&[1, 3], &[3, 4, 5]),
    );
    check(
        "slice{axis=0,start=1,end=-1,step=-9223372036854775808}",
        std::slice::from_ref(&x),
        i(&[1, 3], &[3, 4, 5]),
    );
    check("slice{axis=0,start=2,end=1,step=1}", std::slice::from_ref(&x), i(&[0, 3], &[]));
    check("expand{shape=[2,2,2]}", &[i(&[2, 1], &[7, 8])], i(&[2, 2, 2], &[7, 7, 8, 8, 7, 7, 8, 8]));
    check("gather{axis=1}", &[x.clone(), i(&[2, 1], &[-1, 0])], i(&[2, 2, 1], &[2, 0, 5, 3]));
    check("gather{axis=0}", &[x.clone(), Tensor::scalar_i64(1)], i(&[3], &[3, 4, 5]));
    check("gather_nd{batch_dims=0}", &[x.clone(), i(&[2, 2], &[0, 1, 1, -1])], i(&[2], &[1, 5]));
    check("gather_nd{batch_dims=0}", &[x.clone(), i(&[2, 1], &[1, 0])], i(&[2, 3], &[3, 4, 5, 0, 1, 2]));
    check("gather_nd{batch_dims=1}", &[x.clone(), i(&[2, 2, 1], &[0, 2, 1, 1])], i(&[2, 2], &[0, 2, 4, 4]));
    check(
        "scatter_nd",
        &[x.clone(), i(&[3, 1], &[0, -1, 0]), i(&[3, 3], &[9, 9, 9, 6, 6, 6, 7, 7, 7])],
        i(&[2, 3], &[7, 7, 7, 6, 6, 6]),
    );
    check("scatter_nd", &[x.clone(), i(&[1, 2], &[1, 1]), i(&[1], &[8])], i(&[2, 3], &[0, 1, 2, 3, 8, 5]));
    check("tile{repeats=[2,2]}", &[i(&[1, 2], &[1, 2])], i(&[2, 4], &[1, 2, 1, 2, 1, 2, 1, 2]));
    check("tile{repeats=[1,1099511627776]}", &[i(&[2, 0], &[])], i(&[2, 0], &[]));
    check("trilu{upper=true,diagonal=0}", std::slice::from_ref(&x), i(&[2, 3], &[0, 1, 2, 0, 4, 5]));
    check("trilu{upper=true,diagonal=1}", std::slice::from_ref(&x), i(&[2, 3], &[0, 1, 2, 0, 0, 5]));
    check("trilu{upper=false,diagonal=0}", std::slice::from_ref(&x), i(&[2, 3], &[0, 0, 0, 3, 4, 0]));
    check("trilu{upper=false,diagonal=-1}", std::slice::from_ref(&x), i(&[2, 3], &[0, 0, 0, 3, 0, 0]));
    check("trilu{upper=true,diagonal=9223372036854775807}", std::slice::from_ref(&x), i(&[2, 3], &[0; 6]));
    check("trilu{upper=false,diagonal=9223372036854775807}", std::slice::from_ref(&x), x.clone());
}

#[test]
fn arithmetic_on_floats() {
    let x = f(&[4], &[-2.0, 0.0, 3.0, NAN]);
    let y = f(&[4], &[4.0, -1.0, 2.0, 1.0]);
    let table: [(&str, [f32; 4]); 7] = [
        ("add", [2.0, -1.0, 5.0, NAN]),
        ("sub", [-6.0, 1.0, 1.0, NAN]),
        ("mul", [-8.0, 0.0, 6.0, NAN]),
        ("div", [-0.5, 0.0, 1.5, NAN]),
        ("pow", [16.0, INF, 9.0, NAN]),
        ("max", [4.0, 0.0, 3.0, NAN]),
        ("min", [-2.0, -1.0, 2.0, NAN]),
    ];
    for (op, expected) in table {
        check(op, &[x.clone(), y.clone()], f(&[4], &expected));
    }
    check("max", &[y.clone(), x.clone()], f(&[4], &[4.0, 0.0, 3.0, NAN]));
    check(
        "add",
        &[f(&[2, 1], &[1.0, 2.0]), f(&[3], &[10.0, 20.0, 30.0])],
        f(&[2, 3], &[11.0, 21.0, 31.0, 12.0, 22.0, 32.0]),
    );
    check("pow", &[f(&[3], &[-2.0, 4.0, 0.0]), i(&[3], &[3, -1, 0])], f(&[3], &[-8.0, 0.25, 1.0]));
}

#[test]
fn arithmetic_on_integers() {
    let x = i(&[4], &[-7, 7, i64::MIN, 3]);
    let y = i(&[4], &[2, -2, -1, 3]);
    let table: [(&str, [i64; 4]); 6] = [
        ("add", [-5, 5, i64::MAX, 6]),
        ("sub", [-9, 9, i64::MIN + 1, 0]),
        ("mul", [-14, -14, i64::MIN, 9]),
        ("div", [-3, -3, i64::MIN, 1]),
        ("max", [2, 7, -1, 3]),
        ("min", [-7, -2, i64::MIN, 3]),
    ];
    for (op, expected) in table {
        check(op, &[x.clone(), y.clone()], i(&[4], &expected));
    }
    check("pow", &[i(&[3], &[2, -3, 5]), i(&[3], &[5, 3, 0])], i(&[3], &[32, -27, 1]));
    check("neg", &[i(&[2], &[i64::MIN, 3])], i(&[2], &[i64::MIN, -3]));
    check("abs", &[i(&[2], &[i64::MIN, -3])], i(&[2], &[i64::MIN, 3]));
    fails("div", &[x.clone(), Tensor::scalar_i64(0)], |e| matches!(e, OpError::DivisionByZero { .. }));
    fails("pow", &[i(&[1], &[0]), i(&[1], &[-1])], |e| matches!(e, OpError::DivisionByZero { .. }));
    check("div", &[i(&[0], &[]), Tensor::scalar_i64(0)], i(&[0], &[]));
}

#[test]
fn unary_floats() {
    let table: [(&str, [f32; 3], [f32; 3]); 21] = [
        ("neg", [1.0, -2.0, 0.0], [-1.0, 2.0, 0.0]),
        ("abs", [1.0, -2.0, 0.0], [1.0, 2.0, 0.0]),
        ("floor", [1.5, -1.5, 2.0], [1.0, -2.0, 2.0]),
        ("sqrt", [4.0, 2.0, -1.0], [2.0, std::f32::consts::SQRT_2, NAN]),
        ("reciprocal", [4.0, -0.5, 0.0], [0.25, -2.0, INF]),
        ("rsqrt", [4.0, 0.25, 0.0], [0.5, 2.0, INF]),
        ("exp", [0.0, 1.0, -1.0], [1.0, 2.718_281_7, 0.367_879_45]),
        ("log", [1.0, 2.0, 0.0], [0.0, std::f32::consts::LN_2, -INF]),
        ("sin", [0.0, 1.0, -1.0], [0.0, 0.841_471, -0.841_471]),
        ("cos", [0.0, 1.0, -1.0], [1.0, 0.540_302_3, 0.540_302_3]),
        ("erf", [0.5, -1.0, 9.0], [0.520_499_9, -0.842_700_8, 1.0]),
        ("tanh", [0.0, 1.0, -20.0], [0.0, 0.761_594_2, -1.0]),
        ("sigmoid", [0.0, 1.0, -200.0], [0.5, 0.731_058_6, 0.0]),
        ("relu", [-1.0, 2.0, NAN], [0.0, 2.0, NAN]),
        ("clip{min=-1.0,max=1.0}", [-3.0, 0.5, 3.0], [-1.0, 0.5, 1.0]),
        ("clip{min=2.0,max=1.0}", [-3.0, 0.5, NAN], [1.0, 1.0, NAN]),
        ("gelu{form=erf}", [1.0, -1.0, -9.0], [0.841_344_8, -0.158_655_25, 0.0]),
        ("gelu{form=tanh}", [1.0, -1.0, -9.0], [0.841_192, -0.158_808, 0.0]),
        ("silu", [0.0, 1.0, -1.0], [0.0, 0.731_058_6, -0.268_941_43]),
        ("cast{to=f32}", [0.0, 1.0, -1.0], [0.0, 1.0, -1.0]),
        ("softmax{axis=0}", [0.0, 0.0, -INF], [0.5, 0.5, 0.0]),
    ];
    for (op, x, expected) in table {
        check(op, &[f(&[3], &x)], f(&[3], &expected));
    }
    check("is_nan", &[f(&[3], &[0.0, NAN, INF])], b(&[3], &[0, 1, 0]));
    check("cast{to=i64}", &[f(&[2], &[-1.5, 7.9])], i(&[2], &[-1, 7]));
}

#[test]
fn logic() {
    let (p, q) = (b(&[4], &[0, 0, 1, 1]), b(&[4], &[0, 1, 0, 1]));
    check("not", std::slice::from_ref(&p), b(&[4], &[1, 1, 0, 0]));
    check("and", &[p.clone(), q.clone()], b(&[4], &[0, 0, 0, 1]));
    check("or", &[p.clone(), q.clone()], b(&[4], &[0, 1, 1, 1]));
    check("equal", &[p.clone(), q.clone()], b(&[4], &[1, 0, 0, 1]));
    let table: [(&str, [u8; 3]); 5] = [
        ("equal", [0, 1, 0]),
        ("less", [1, 0, 0]),
        ("less_or_equal", [1, 1, 0]),
        ("greater", [0, 0, 1]),
        ("greater_or_equal", [0, 1, 1]),
    ];
    for (op, expected) in table {
        check(op, &[i(&[3], &[1, 2, 3]), Tensor::scalar_i64(2)], b(&[3], &expected));
        check(op, &[f(&[3], &[1.0, 2.0, 3.0]), Tensor::scalar_f32(2.0)], b(&[3], &expected));
        check(op, &[f(&[1], &[NAN]), f(&[1], &[NAN])], b(&[1], &[0]));
    }
    check(
        "where",
        &[b(&[2, 1], &[1, 0]), i(&[2], &[1, 2]), Tensor::scalar_i64(9)],
        i(&[2, 2], &[1, 2, 9, 9]),
    );
}

#[test]
fn reductions() {
    let x = f(&[2, 3], &[1.0, 5.0, 3.0, 4.0, 2.0, 6.0]);
    check("reduce_sum{axes=[1],keepdims=false}", std::slice::from_ref(&x), f(&[2], &[9.0, 12.0]));
    check("reduce_sum{axes=[0],keepdims=true}", std::slice::from_ref(&x), f(&[1, 3], &[5.0, 7.0, 9.0]));
    check("reduce_mean{axes=[0,1],keepdims=false}", std::slice::from_ref(&x), Tensor::scalar_f32(3.5));
    check("reduce_max{axes=[0],keepdims=false}", std::slice::from_ref(&x), f(&[3], &[4.0, 5.0, 6.0]));
    check("reduce_max{axes=[0],keepdims=false}", &[f(&[2], &[NAN, 1.0])], Tensor::scalar_f32(NAN));
    check("reduce_sum{axes=[0,2],keepdims=false}", &[i(&[2, 3, 1], &SIX)], i(&[3], &[3, 5, 7]));
    check("reduce_max{axes=[0],keepdims=false}", &[i(&[0, 2], &[])], i(&[2], &[i64::MIN, i64::MIN]));
    check("reduce_mean{axes=[0],keepdims=false}", &[f(&[0, 1], &[])], f(&[1], &[NAN]));
    // In f32 the sum would stay at 2^24.
    let long = vec![1.0; (1 << 24) + 4];
    check(
        "reduce_sum{axes=[0],keepdims=false}",
        &[f(&[long.len()], &long)],
        Tensor::scalar_f32(long.len() as f32),
    );

    let y = i(&[2, 3], &SIX);
    let table: [(&str, [i64; 6]); 5] = [
        ("cum_sum{axis=1,exclusive=false,reverse=false}", [0, 1, 3, 3, 7, 12]),
        ("cum_sum{axis=1,exclusive=true,reverse=false}", [0, 0, 1, 0, 3, 7]),
        ("cum_sum{axis=1,exclusive=false,reverse=true}", [3, 3, 2, 12, 9, 5]),
        ("cum_sum{axis=1,exclusive=true,reverse=true}", [3, 2, 0, 9, 5, 0]),
        ("cum_sum{axis=0,exclusive=false,reverse=false}", [0, 1, 2, 3, 5, 7]),
    ];
    for (op, expected) in table {
        check(op, std::slice::from_ref(&y), i(&[2, 3], &expected));
        check(op, &[y.cast(DType::F32)], i(&[2, 3], &expected).cast(DType::F32));
    }
    check("arg_max{axis=1,keepdims=false}", std::slice::from_ref(&x), i(&[2], &[1, 2]));
    check("arg_max{axis=0,keepdims=true}", &[i(&[2, 2], &[3, 1, 3, 2])], i(&[1, 2], &[0, 1]));
    check("arg_max{axis=0,keepdims=false}", &[f(&[4], &[1.0, NAN, 3.0, NAN])], Tensor::scalar_i64(1));
    fails("arg_max{axis=0,keepdims=false}", &[i(&[0], &[])], |e| matches!(e, OpError::EmptyAxis { .. }));
}

#[test]
fn products() {
    check("mat_mul", &[i(&[2, 3], &SIX), i(&[3], &[1, 10, 100])], i(&[2], &[210, 543]));
    check("mat_mul", &[i(&[2], &[1, 10]), i(&[2, 3], &SIX)], i(&[3], &[30, 41, 52]));
    check("mat_mul", &[i(&[2], &[3, 4]), i(&[2], &[5, 6])], Tensor::scalar_i64(39));
    check(
        "mat_mul",
        &[f(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0]), f(&[2, 2, 1], &[1.0, 1.0, 10.0, 100.0])],
        f(&[2, 1, 1], &[3.0, 430.0]),
    );
    check("mat_mul", &[f(&[2, 0], &[]), f(&[0, 1], &[])], f(&[2, 1], &[0.0, 0.0]));
    check("one_hot{depth=3}", &[i(&[2], &[2, -3])], f(&[2, 3], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
    let ones = |shape: &[usize]| f(shape, &vec![1.0; shape.iter().product()]);
    let image = f(&[1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let plain = "strides=[1,1],pads=[0,0,0,0],dilations=[1,1],group=1";
    check(
        &format!("conv{{{plain}}}"),
        &[image.clone(), ones(&[1, 1, 2, 2])],
        f(&[1, 1, 2, 2], &[12.0, 16.0, 24.0, 28.0]),
    );
    check(
        "conv{strides=[2,1],pads=[1,0,0,1],dilations=[1,2],group=1}",
        &[image.clone(), f(&[1, 1, 2, 2], &[1.0, 10.0, 100.0, 1000.0])],
        f(&[1, 1, 2, 2], &[3100.0, 200.0, 9764.0, 805.0]),
    );
    check(
        "conv{strides=[1,1],pads=[0,0,0,0],dilations=[1,1],group=2}",
        &[f(&[2, 2, 1, 1], &[3.0, 5.0, 4.0, 6.0]), f(&[4, 1, 1, 1], &[2.0, 10.0, 1.0, -1.0])],
        f(&[2, 4, 1, 1], &[6.0, 30.0, 5.0, -5.0, 8.0, 40.0, 6.0, -6.0]),
    );
}

#[test]
fn recognised() {
    check("softmax{axis=0}", &[f(&[2, 2], &[1e4, 0.0, 1e4, 0.0])], f(&[2, 2], &[0.5; 4]));
    let scores = f(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let keep = b(&[2, 3], &[1, 0, 1, 0, 0, 0]);
    let softmax = [0.119_202_92, 0.0, 0.880_797_1, 0.0, 0.0, 0.0];
    check("attention_softmax", &[scores.clone(), keep.clone()], f(&[2, 3], &softmax));
    let bias = f(&[3], &[0.0, 9.0, -1e4]);
    check("attention_softmax", &[scores.clone(), keep, bias], f(&[2, 3], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let bias = f(&[1, 3], &[2.0, -INF, 0.0]);
    let half = [0.5, 0.0, 0.5, 0.5, 0.0, 0.5];
    check("attention_softmax", &[scores, Tensor::scalar_bool(true), bias], f(&[2, 3], &half));
    let pair = |x: f32, y: f32| f(&[2], &[x, y]);
    check(
        "layer_norm{epsilon=0.0}",
        &[f(&[2, 2], &[1.0, 3.0, 7.0, 5.0]), pair(2.0, 3.0), pair(10.0, 20.0)],
        f(&[2, 2], &[8.0, 23.0, 12.0, 17.0]),
    );
    check("layer_norm{epsilon=3.0}", &[pair(1.0, 3.0), pair(1.0, 1.0), pair(0.0, 0.0)], pair(-0.5, 0.5));
    check("layer_norm{epsilon=3.0}", &[pair(1.0, 3.0)], pair(-0.5, 0.5));
    check("rms_norm{epsilon=0.0}", &[pair(3.0, 4.0)], pair(0.848_528_1, 1.131_370_9));
    fails("layer_norm{epsilon=3.0}", &[pair(1.0, 3.0), pair(1.0, 1.0)], |error| {
        matches!(error, OpError::ArgumentCount { min: 3, max: 3, found: 2, .. })
    });
    check("rms_norm{epsilon=0.0}", &[pair(3.0, 4.0), pair(1.0, 2.0)], pair(0.848_528_15, 2.262_741_7));
    check(
        "rotary",
        &[
            f(&[1, 4], &[1.0, 2.0, 3.0, 4.0]),
            f(&[4], &[1.0, 0.0, 1.0, 0.0]),
            f(&[1, 4], &[0.0, 1.0, 0.5, 1.0]),
        ],
        f(&[1, 4], &[1.0, -4.0, 3.5, 2.0]),
    );
    assert_eq!("gelu{form=tanh}".parse(), Ok(Op::Gelu { form: GeluForm::Tanh }));
}

#[test]
fn faults_of_elements() {
    let x = i(&[2, 3], &SIX);
    let out: fn(&OpError) -> bool = |e| matches!(e, OpError::IndexOutOfRange { .. });
    fails("gather{axis=0}", &[x.clone(), i(&[1], &[2])], out);
    fails("gather{axis=0}", &[x.clone(), i(&[1], &[i64::MIN])], out);
    fails("gather{axis=0}", &[i(&[0, 2], &[]), i(&[1], &[0])], out);
    fails("gather_nd{batch_dims=0}", &[x.clone(), i(&[1, 2], &[0, 3])], out);
    fails("scatter_nd", &[x.clone(), i(&[1, 1], &[-3]), i(&[1, 3], &[0; 3])], out);
    fails("one_hot{depth=3}", &[i(&[1], &[3])], out);
}

#[test]
fn faults_of_types() {
    type Fault = fn(&OpError) -> bool;
    let count: Fault = |e| matches!(e, OpError::ArgumentCount { .. });
    let dtype: Fault = |e| matches!(e, OpError::Dtype { .. });
    let shape: Fault = |e| matches!(e, OpError::ShapeMismatch { .. });
    let rank: Fault = |e| matches!(e, OpError::Rank { .. });
    let axis: Fault = |e| matches!(e, OpError::AxisOutOfRange { .. });
    let attribute: Fault = |e| matches!(e, OpError::AttributeValue { .. });
    let large: Fault = |e| matches!(e, OpError::TooManyElements { .. });
    let table: [(&str, &[&str], Fault); 40] = [
        ("add", &["f32[]"], count),
        ("concat{axis=0}", &[], count),
        ("attention_softmax", &["f32[1]"], count),
        ("add", &["f32[]", "i64[]"], dtype),
        ("add", &["bool[]", "bool[]"], dtype),
        ("pow", &["i64[]", "f32[]"], dtype),
        ("not", &["i64[]"], dtype),
        ("where", &["bool[]", "f32[]", "i64[]"], dtype),
        ("gather{axis=0}", &["f32[1]", "f32[1]"], dtype),
        ("attention_softmax", &["f32[1]", "f32[1]"], dtype),
        ("add", &["f32[2]", "f32[3]"], shape),
        ("reshape{shape=[4]}", &["f32[3]"], shape),
        ("expand{shape=[2]}", &["f32[2,2]"], shape),
        ("expand{shape=[1]}", &["f32[2]"], shape),
        ("concat{axis=0}", &["f32[2,2]", "f32[2,3]"], shape),
        ("mat_mul", &["f32[2,3]", "f32[2,3]"], shape),
        ("mat_mul", &["f32[2,1,1]", "f32[3,1,1]"], shape),
        ("layer_norm{epsilon=0.1}", &["f32[2,3]", "f32[3]", "f32[2]"], shape),
        ("gather_nd{batch_dims=1}", &["f32[2,3]", "i64[3,1]"], shape),
        ("gather_nd{batch_dims=9}", &["f32[2,3]", "i64[2,1]"], shape),
        ("gather_nd{batch_dims=0}", &["f32[2]", "i64[2]"], shape),
        ("scatter_nd", &["f32[2,3]", "i64[1,1]", "f32[1,2]"], shape),
        ("rotary", &["f32[4]", "f32[2]", "f32[4]"], shape),
        ("gather_nd{batch_dims=0}", &["f32[2]", "i64[]"], rank),
        ("trilu{upper=true,diagonal=0}", &["f32[2]"], rank),
        ("mat_mul", &["f32[]", "f32[]"], rank),
        ("rotary", &["f32[3]", "f32[3]", "f32[3]"], rank),
        ("conv{strides=[1,1],pads=[0,0,0,0],dilations=[1,1],group=1}", &["f32[1,1,2]", "f32[1,1,1,1]"], rank),
        (
            "conv{strides=[1,1],pads=[0,0,0,0],dilations=[1,1],group=1}",
            &["f32[1,1,2,2]", "f32[1,1,3,1]"],
            shape,
        ),
        (
            "conv{strides=[1,1],pads=[0,0,0,0],dilations=[1,1],group=2}",
            &["f32[1,1,2,2]", "f32[1,1,1,1]"],
            attribute,
        ),
        (
            "conv{strides=[0,1],pads=[0,0,0,0],dilations=[1,1],group=1}",
            &["f32[1,1,2,2]", "f32[1,1,1,1]"],
            attribute,
        ),
        ("softmax{axis=1}", &["f32[2]"], axis),
        ("slice{axis=0,start=0,end=3,step=1}", &["f32[2]"], attribute),
        ("slice{axis=0,start=0,end=-2,step=-1}", &["f32[2]"], attribute),
        ("slice{axis=0,start=0,end=1,step=0}", &["f32[2]"], attribute),
        ("transpose{perm=[0,0]}", &["f32[2,2]"], attribute),
        ("tile{repeats=[1]}", &["f32[2,2]"], attribute),
        ("reduce_sum{axes=[1,0],keepdims=true}", &["f32[2,2]"], attribute),
        ("expand{shape=[1099511627776,2]}", &["f32[]"], large),
        ("one_hot{depth=18446744073709551615}", &["i64[2]"], large),
    ];
    for (op, args, fault) in table {
        let args: Vec<_> = args.iter().map(|arg| arg.parse().unwrap()).collect();
        let error = marill_plaintext::infer(&op.parse().unwrap(), &args).unwrap_err();
        assert!(fault(&error), "{op} {args:?}: {error:?}");
        assert!(error.to_string().chars().next().is_some_and(char::is_lowercase), "{error}");
    }
    let reshape = |axes: usize| marill_plaintext::Op::Reshape { shape: vec![1; axes] };
    let scalar = ["f32[]".parse().unwrap()];
    assert!(marill_plaintext::infer(&reshape(64), &scalar).is_ok());
    let error = marill_plaintext::infer(&reshape(65), &scalar).unwrap_err();
    assert_eq!(error, OpError::TooManyAxes { found: 65 });
}
