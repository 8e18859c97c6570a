//! `verify --random`: what it draws, what it finds, and how it makes a failure small.

use std::sync::OnceLock;
use std::time::Duration;

use wgconv::{Cache, Gpu};

use crate::examples_verify::verify::random::problem::{Op, Problem};
use crate::examples_verify::verify::random::{Request, Summary, draw, random};

/// With guards around every buffer.
fn guarded() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    let open = || Gpu::builder().adapter_from_env().cache(Cache::Off).guarded(true).build_blocking().expect("adapter");
    GPU.get_or_init(open).clone()
}

fn request(count: u64, seed: u64, ops: &str) -> Request {
    let ops = if ops.is_empty() { Vec::new() } else { Op::list(ops).expect("names") };
    Request { count, seed, ops, most: None, only: None, repeat: String::new(), tamper: None }
}

fn run(request: &Request) -> (Summary, String) {
    let mut out = Vec::new();
    let summary = random(request, &guarded(), &mut out).expect("a device");
    (summary, String::from_utf8(out).expect("text"))
}

/// A slice of a geometry of each operator, the same each time.
#[test]
fn a_slice_of_every_operator() {
    // A shader for 16 lanes takes llvmpipe a quarter of a minute to compile.
    let some = if guarded().profile().subgroup == Some(16) { 2 } else { 16 };
    for (op, _) in Op::ALL {
        let (summary, text) = run(&request(some, 5, op.name()));
        assert_eq!((summary.problems, &summary.failures[..]), (some, &[][..]), "{text}");
        assert!(summary.kernels.keys().all(|(of, _)| *of == op) && !summary.kernels.is_empty(), "{text}");
        assert!(text.lines().next().is_some_and(|line| line.starts_with(op.name())), "{text}");
    }
}

#[test]
fn a_seed_draws_the_same_problems() {
    let drawn = |seed, ops: &[Op]| (0..2000).map(|number| draw::draw(seed, number, ops)).collect::<Vec<Problem>>();
    let first = drawn(3, &[]);
    assert_eq!(first, drawn(3, &[]));
    assert_ne!(first, drawn(4, &[]));
    for (op, _) in Op::ALL {
        assert!(drawn(3, &[op]).iter().all(|p| p.op == op));
    }
    let many = |is: &dyn Fn(&Problem) -> bool| assert!(first.iter().filter(|p| is(p)).count() > 40);
    many(&|p| p.op == Op::Conv && p.groups == 1);
    many(&|p| p.op == Op::Conv && p.channels[0] == 1 && p.groups > 1);
    many(&|p| p.op == Op::Conv && p.kernel == [3, 3] && p.stride == [1, 1] && p.channels[0].is_multiple_of(4));
    many(&|p| p.extents.len() == 3 && p.op.operator().is_some());
    many(&|p| p.pads.iter().any(|(a, b)| a != b));
    many(&|p| p.residual && p.bias);
    let (a, b) = (run(&request(40, 8, "linear")), run(&request(40, 8, "linear")));
    assert_eq!(a.0, b.0);
    assert!(a.0.problems == 40 && a.1.contains("seed 8: 40 problems"), "{}", a.1);
}

#[test]
fn an_end_comes_with_the_time() {
    let stopped = Request { most: Some(Duration::ZERO), ..request(1_000_000, 1, "") };
    assert_eq!(run(&stopped).0.problems, 0);
}

/// Wrong where there are three output channels a group, four rows and a bias.
fn wrong(p: &Problem, kernel: &str, values: &mut [f32]) {
    if kernel == "direct" && p.channels[1] >= 3 && p.extents[0] >= 4 && p.bias {
        values[0] += 1e4;
    }
}

#[test]
fn a_failure_is_made_small_and_can_be_repeated() {
    let first = (0..).find(|&number| {
        let p = draw::draw(1, number, &[Op::Conv]);
        p.channels[1] > 3 && p.extents.len() == 2 && p.extents[0] > 5 && p.bias && p.batch > 1 && p.kernel[0] > 1
    });
    let number = first.expect("such a problem");
    let request =
        Request { only: Some(number), tamper: Some(wrong), repeat: " --ops conv".into(), ..request(1, 1, "conv") };
    let (summary, text) = run(&request);
    let [line] = &summary.failures[..] else { panic!("{text}") };
    assert!(line.starts_with("FAIL conv direct: 1 of ") && line.contains("first at [0, 0, 0, 0]"), "{line}");
    assert!(
        line.contains("problem conv input [1, 1, 4, 1] channels a group [1, 3] kernel [1, 1] bias true values"),
        "{line}"
    );
    assert!(line.ends_with(&format!("repeat: verify --random 1 --seed 1 --only {number} --ops conv")), "{line}");
    assert_eq!(run(&request).0, summary, "the same again");
    let (right, text) = run(&Request { tamper: None, ..request });
    assert!(right.failures.is_empty() && right.problems == 1, "{text}");
}

#[test]
fn a_kernel_that_is_wrong_everywhere_stops_the_run() {
    let all: fn(&Problem, &str, &mut [f32]) = |_, _, values| values[0] = f32::NAN;
    let (summary, _) = run(&Request { tamper: Some(all), ..request(1000, 2, "activation") });
    assert_eq!((summary.failures.len(), summary.problems), (100, 100));
}

#[test]
fn names_of_operators_are_checked() {
    assert_eq!(Op::list("conv, linear").expect("two"), [Op::Conv, Op::Linear]);
    let error = Op::list("conv,deconv").expect_err("no such operator").to_string();
    assert!(error.contains("deconv") && error.contains("conv_transpose"), "{error}");
}
