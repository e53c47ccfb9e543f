use firecrest::generate::LanguageModel;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let model = firecrest::Model::from_gguf_file(&args[1]).unwrap();
    let mut options = firecrest::ContextOptions::default();
    options.capacity = Some(2048);
    options.cpu.threads = std::num::NonZero::new(args[2].parse().unwrap());
    let mut decoder = model.decoder(&options).unwrap();
    let tokens: Vec<u32> = (0..512).map(|i| (i * 37 + 11) % 49000).collect();
    for _ in 0..3 {
        decoder.truncate(0);
        let t = std::time::Instant::now();
        decoder.submit(&tokens).unwrap();
        let prefill = 512.0 / t.elapsed().as_secs_f64();
        decoder.truncate(0);
        decoder.submit(&tokens[..1]).unwrap();
        let t = std::time::Instant::now();
        for i in 0..64 {
            decoder.submit(&[100 + i]).unwrap();
        }
        println!("prefill {prefill:.0} decode {:.1}", 64.0 / t.elapsed().as_secs_f64());
    }
}
