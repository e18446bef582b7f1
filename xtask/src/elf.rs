//! Just enough of ELF to know which shared libraries a program asks for (64-bit little-endian, as on our architectures).

use anyhow::{Context, Result, bail};

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_LOAD: u32 = 1;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

#[derive(Debug, Default, PartialEq)]
pub struct Needs {
    /// `libc.so.6`, …
    pub libraries: Vec<String>,
    /// `/lib64/ld-linux-x86-64.so.2`
    pub interpreter: Option<String>,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// `None` for a file that is no ELF file.
pub fn needs(file: &[u8]) -> Result<Option<Needs>> {
    if !file.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    if file.get(4..6) != Some(&[2, 1]) {
        bail!("not a 64-bit little-endian ELF file");
    }
    let table = number(file, 32, 8)?;
    let (entry_size, count) = (number(file, 54, 2)?, number(file, 56, 2)?);
    let mut segments = Vec::new();
    for i in 0..count {
        let at = table + i * entry_size;
        segments.push(Segment {
            kind: number(file, at, 4)? as u32,
            offset: number(file, at + 8, 8)?,
            address: number(file, at + 16, 8)?,
            size: number(file, at + 32, 8)?,
        });
    }
    let mut needs = Needs::default();
    if let Some(interpreter) = segments.iter().find(|s| s.kind == PT_INTERP) {
        needs.interpreter = Some(text(file, interpreter.offset)?);
    }
    let Some(dynamic) = segments.iter().find(|s| s.kind == PT_DYNAMIC) else { return Ok(Some(needs)) };
    let mut names = Vec::new();
    let mut strings = None;
    for at in (dynamic.offset..dynamic.offset + dynamic.size).step_by(16) {
        let value = number(file, at + 8, 8)?;
        match number(file, at, 8)? {
            0 => break,
            DT_NEEDED => names.push(value),
            DT_STRTAB => strings = Some(value),
            _ => {}
        }
    }
    let strings = strings.context("ELF file without a string table")?;
    let load = segments
        .iter()
        .find(|s| s.kind == PT_LOAD && (s.address..s.address + s.size).contains(&strings))
        .context("ELF string table lies outside the file")?;
    let strings = strings - load.address + load.offset;
    needs.libraries = names.into_iter().map(|name| text(file, strings + name)).collect::<Result<_>>()?;
    Ok(Some(needs))
}

fn number(file: &[u8], at: u64, size: usize) -> Result<u64> {
    let at = usize::try_from(at)?;
    let bytes = file.get(at..at + size).context("ELF file is cut off")?;
    Ok(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn text(file: &[u8], at: u64) -> Result<String> {
    let rest = file.get(usize::try_from(at)?..).context("ELF file is cut off")?;
    let end = rest.iter().position(|b| *b == 0).context("ELF file is cut off")?;
    Ok(String::from_utf8(rest[..end].to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_real_program() {
        let shell = needs(&std::fs::read("/bin/bash").unwrap()).unwrap().unwrap();
        assert!(shell.libraries.iter().any(|l| l == "libc.so.6"), "{shell:?}");
        assert!(shell.interpreter.unwrap().contains("ld-linux"));
        assert_eq!(needs(b"#!/bin/sh\n").unwrap(), None);
        assert!(needs(b"\x7fELF").is_err());
    }
}
