use wgconv::{*, ndarray::Array};
fn main() -> Result<()> {
    let gpu = Gpu::builder().adapter_from_env().build_blocking()?;
    println!("{:?} {:?}", gpu.adapter_info(), gpu.profile());
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (n, c, h, o, k, g, p) = (args[0], args[1], args[2], args[3], args[4], args[5], args[6]);
    let x = Array::from_shape_fn((n, c, h, h), |(a, b, i, j)| ((a * 7 + b * 5 + i * 3 + j) % 11) as f32 - 5.0);
    let w = Array::from_shape_fn((o, c / g, k, k), |(a, b, i, j)| ((a * 3 + b * 5 + i * 7 + j) % 7) as f32 - 3.0);
    let (x, w) = (Tensor::from_array(&gpu, &x)?, Tensor::from_array(&gpu, &w)?);
    let op = Conv2d::new().padding(p).groups(g);
    let mut first = None;
    for kernel in op.candidates(gpu.profile(), x.shape(), w.shape())?.into_iter().rev() {
        if std::env::args().nth(8).is_some_and(|k| !format!("{kernel:?}").contains(&k)) { continue }
        let op = op.clone().kernel(kernel);
        println!("{}", op.plan(gpu.profile(), x.shape(), w.shape())?);
        let t = std::time::Instant::now();
        let y = op.forward(&x, &w, None)?.to_array()?;
        println!("first {:?}", t.elapsed());
        let same = first.get_or_insert(y.clone()) == &y;
        println!("same {same}");
        let mut all = vec![];
        for _ in 0..15 {
            let t = gpu.time_kernels(|| op.forward(&x, &w, None).map(|_| ()))?;
            all.push(t.iter().map(|t| t.nanoseconds).collect::<Vec<_>>());
        }
        all.sort_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum::<f64>()));
        println!("{:?} ms, min {:?}", all[7].iter().map(|t| t / 1e6).collect::<Vec<_>>(), all[0].iter().sum::<f64>() / 1e6);
    }
    println!("{:?}", gpu.counters());
    Ok(())
}
