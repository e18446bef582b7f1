//! `cargo xtask images`: the base images from Debian's packages, and DockerCoins, as archives that any engine loads.
//!
//! Built by `coracle build`, in a store of their own below the output folder; an image whose inputs did not change is
//! left as it is. Each build context stays beside the archives, so that a learner can edit its Dockerfile and build it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::cargo;
use crate::debian::Packages;

/// Images made from packages: name, and what fills `rootfs/`.
type Fill = fn(work: &Path, rootfs: &Path) -> Result<()>;
const BASES: &[(&str, Fill)] = &[("alpine", fill_alpine), ("redis", fill_redis)];
const COINS: &[&str] = &["rng", "hasher", "worker", "webui"];
const COIN_TAGS: &[&str] = &["latest", "v0.1"];
/// Raised when this file makes something else of the same inputs.
const GENERATION: u32 = 2;

pub fn command(arguments: &[String]) -> Result<()> {
    let out = match arguments {
        [] => crate::root().join("target/images"),
        [flag, dir] if flag == "--out" => PathBuf::from(dir),
        [flag] if flag.starts_with("--out=") => PathBuf::from(&flag["--out=".len()..]),
        _ => bail!("usage: cargo xtask images [--out DIR]"),
    };
    let coracle = cargo::build_release(&["coracle"])?.remove(0);
    make_all(&coracle, &out)?;
    Ok(())
}

/// Makes every image with this program and returns the archives. Prints one line per image, and the build's own lines for what is built.
pub fn make_all(coracle: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out)?;
    let out = fs::canonicalize(out)?;
    let mut archives = Vec::new();
    let mut base = Vec::new();
    for (name, fill) in BASES {
        let recipe = crate::root().join("images").join(name);
        let mut image = Making { coracle, out: &out, name, tags: vec![format!("{name}:latest")], stamp: Sha256::new() };
        base.iter().for_each(|previous: &Vec<u8>| image.stamp.update(previous));
        image.stamp_folder(&recipe)?;
        let key = image.stamp.clone().finalize().to_vec();
        archives.push(image.make(|context| {
            copy_folder(&recipe, context)?;
            let rootfs = context.join("rootfs");
            fs::create_dir(&rootfs)?;
            fill(&out.join("work").join(name), &rootfs)
        })?);
        base.push(key);
    }
    let binaries = cargo::build_release(COINS)?;
    for (name, binary) in COINS.iter().zip(&binaries) {
        let recipe = crate::root().join("dockercoins").join(name);
        let tags = COIN_TAGS.iter().map(|tag| format!("dockercoins/{name}:{tag}")).collect();
        let mut image = Making { coracle, out: &out, name, tags, stamp: Sha256::new() };
        base.iter().for_each(|previous| image.stamp.update(previous));
        for input in coin_files(&recipe) {
            image.stamp_folder(&input)?;
        }
        image.stamp_folder(binary)?;
        archives.push(image.make(|context| {
            for input in coin_files(&recipe) {
                copy_folder(&input, &context.join(input.file_name().unwrap_or_default()))?;
            }
            copy_folder(binary, &context.join(name))
        })?);
    }
    Ok(archives)
}

/// What of a DockerCoins folder is image rather than source.
fn coin_files(recipe: &Path) -> Vec<PathBuf> {
    ["Dockerfile", "files"].iter().map(|f| recipe.join(f)).filter(|p| p.exists()).collect()
}

struct Making<'a> {
    coracle: &'a Path,
    out: &'a Path,
    name: &'a str,
    tags: Vec<String>,
    stamp: Sha256,
}

impl Making<'_> {
    fn stamp_folder(&mut self, path: &Path) -> Result<()> {
        for file in files(path)? {
            self.stamp.update(file.strip_prefix(path)?.as_os_str().as_encoded_bytes());
            self.stamp.update(fs::metadata(&file)?.permissions().mode().to_le_bytes());
            self.stamp.update(fs::read(&file)?);
        }
        Ok(())
    }

    fn make(self, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let archive = self.out.join(format!("{}.tar", self.name));
        let stamp_file = self.out.join(format!("{}.stamp", self.name));
        let digest = self.stamp.clone().finalize();
        let stamp = format!("{GENERATION} {}\n", digest.iter().map(|b| format!("{b:02x}")).collect::<String>());
        let known = fs::read_to_string(&stamp_file).unwrap_or_default();
        if known == stamp && archive.exists() && self.out.join("store").exists() {
            println!("{} is up to date", self.tags[0]);
            return Ok(archive);
        }
        let context = self.out.join(self.name);
        if context.exists() {
            fs::remove_dir_all(&context)?;
        }
        fs::create_dir_all(&context)?;
        prepare(&context).with_context(|| format!("preparing {}", self.name))?;
        let tags = self.tags.iter().flat_map(|tag| ["--tag", tag]);
        self.coracle(&["build"]).args(tags).arg(&context).succeed()?;
        let partial = archive.with_extension("partial");
        self.coracle(&["image", "save"]).arg("--output").arg(&partial).args(&self.tags).succeed()?;
        fs::rename(&partial, &archive)?;
        fs::write(&stamp_file, stamp)?;
        Ok(archive)
    }

    fn coracle(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.coracle);
        command.args(arguments).arg("--data-dir").arg(self.out.join("store"));
        command
    }
}

trait Succeed {
    fn succeed(&mut self) -> Result<()>;
}

impl Succeed for Command {
    fn succeed(&mut self) -> Result<()> {
        let status = self.status().with_context(|| format!("cannot run {self:?}"))?;
        ensure!(status.success(), "{self:?} failed");
        Ok(())
    }
}

// ---- what is in them ----

fn fill_alpine(work: &Path, rootfs: &Path) -> Result<()> {
    let mut packages = Packages::new(work)?;
    packages.add(&["busybox-static".to_owned()])?;
    let busybox = packages.root.join("bin/busybox");
    for (folder, mode) in [
        ("bin", 0o755),
        ("sbin", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("usr/local/bin", 0o755),
        ("lib", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("home", 0o755),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("var/log", 0o755),
        ("var/www", 0o755),
        ("run", 0o755),
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("mnt", 0o755),
        ("opt", 0o755),
        ("srv", 0o755),
    ] {
        let folder = rootfs.join(folder);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
    }
    fs::copy(&busybox, rootfs.join("bin/busybox"))?;
    let list = Command::new(&busybox).arg("--list-full").output().context("busybox --list-full")?;
    for applet in String::from_utf8(list.stdout)?.lines() {
        let link = rootfs.join(applet);
        let Some(folder) = link.parent() else { continue };
        fs::create_dir_all(folder)?;
        if fs::symlink_metadata(&link).is_err() {
            symlink("/bin/busybox", &link)?;
        }
    }
    // The node binds its own over these.
    for file in ["etc/resolv.conf", "etc/hosts", "etc/hostname"] {
        fs::write(rootfs.join(file), "")?;
    }
    symlink("../proc/self/mounts", rootfs.join("etc/mtab"))?;
    Ok(())
}

fn fill_redis(work: &Path, rootfs: &Path) -> Result<()> {
    let mut packages = Packages::new(work)?;
    packages.add(&["redis-server".to_owned(), "redis-tools".to_owned()])?;
    // Debian's redis-server and redis-check-aof are links to redis-check-rdb.
    let programs = ["usr/bin/redis-check-rdb", "usr/bin/redis-cli"];
    let libraries = packages.close_over_libraries(&programs)?;
    for file in ["usr/bin/redis-check-rdb", "usr/bin/redis-cli", "usr/bin/redis-server"] {
        copy_link(&packages.root.join(file), &rootfs.join(file))?;
    }
    for (name, path) in &libraries {
        let inside = path.strip_prefix(&packages.root)?;
        // Under the name it is asked for, in the folder the package has it in (the loader looks there by itself).
        let target = rootfs.join(inside).with_file_name(name);
        fs::create_dir_all(target.parent().unwrap_or(rootfs))?;
        fs::copy(path, &target)?;
        if name.starts_with("ld-linux-x86-64") {
            fs::create_dir_all(rootfs.join("lib64"))?;
            let to = rootfs.join("lib64").join(name);
            if fs::symlink_metadata(&to).is_err() {
                fs::copy(path, to)?;
            }
        }
        if name.starts_with("ld-linux-aarch64") {
            fs::create_dir_all(rootfs.join("lib"))?;
            fs::copy(path, rootfs.join("lib").join(name))?;
        }
    }
    Ok(())
}

// ---- files ----

/// All regular files below a folder (or the file itself), sorted.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if fs::metadata(path).with_context(|| path.display().to_string())?.is_dir() {
        for entry in fs::read_dir(path)? {
            found.extend(files(&entry?.path())?);
        }
        found.sort();
    } else {
        found.push(path.to_owned());
    }
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let inside = file.strip_prefix(from)?;
        let target = if inside.as_os_str().is_empty() { to.to_owned() } else { to.join(inside) };
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(&file, &target).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Copies a file, or a symlink as a symlink.
fn copy_link(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    match fs::read_link(from) {
        Ok(target) => symlink(target, to)?,
        Err(_) => _ = fs::copy(from, to).with_context(|| from.display().to_string())?,
    }
    Ok(())
}
