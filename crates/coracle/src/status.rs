//! `coracle status`: whether the cluster runs, what it holds and what it costs.

use anyhow::{Result, bail};

use crate::cli::Folder;
use crate::down;
use crate::paths::Paths;

pub fn run(folder: &Folder) -> Result<()> {
    let paths = Paths::new(&folder.data_dir);
    let Some(pid) = down::running(&paths) else {
        bail!("no cluster runs in {}\nhint: start one with `coracle up`", paths.data.display());
    };
    println!("process     {pid}");
    println!("data        {}", paths.data.display());
    println!("kubeconfig  {}", paths.admin_kubeconfig().display());
    let own = proportional_kib(pid.as_raw());
    let shims: Vec<i32> = shims(&paths);
    let shim_sum: u64 = shims.iter().map(|shim| proportional_kib(*shim)).sum();
    println!("memory      {:.1} MiB, and {:.1} MiB in {} pod shims", own as f64 / 1024.0, shim_sum as f64 / 1024.0, shims.len());
    Ok(())
}

/// Proportional set size, in KiB.
fn proportional_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Shims of this cluster: our binary, called `shim`, with our folder among its arguments.
fn shims(paths: &Paths) -> Vec<i32> {
    let run = paths.run().to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<String> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            words.get(1).is_some_and(|word| word == "shim") && words.contains(&run)
        })
        .collect()
}
