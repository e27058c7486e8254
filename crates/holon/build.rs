//! Builds the web console into the binary: every file of `console/dist`, with its compressed forms.
//!
//! The console is built before (`npm run build` in `console/`; `make up` does it). If it was not, the binary still
//! builds, and serves a page that says how to add it. Files ending in `.br` are taken as the Brotli form of the file
//! they are named after; gzip is made here.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Smaller files gain nothing from compression.
const WORTH_COMPRESSING: usize = 1_024;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let out = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?);
    let console = Path::new(&manifest).join("../../console");
    let dist = console.join("dist");
    if console.is_dir() {
        // An empty directory that is watched, rather than one that is not there, which would mean a rebuild each time.
        fs::create_dir_all(&dist)?;
        println!("cargo::rerun-if-changed={}", dist.display());
    }

    let mut paths = Vec::new();
    files_below(&dist, &mut paths)?;
    paths.sort();
    let mut table = String::from("pub static BUILT_IN: &[BuiltIn] = &[\n");
    for (number, path) in paths.iter().enumerate() {
        if has_extension(path, &["br", "gz", "map"]) {
            continue;
        }
        let name = path.strip_prefix(&dist).map_err(io::Error::other)?;
        let content = fs::read(path)?;
        // A copy, so that a console that is built anew meanwhile does not take the file from under the compiler.
        let copy = out.join(format!("{number}.raw"));
        fs::write(&copy, &content)?;
        let brotli = with_suffix(path, "br");
        let brotli = if brotli.is_file() {
            let copy = out.join(format!("{number}.br"));
            fs::copy(&brotli, &copy)?;
            included(&copy)
        } else {
            "None".into()
        };
        let gzip = match compressed(&content)? {
            Some(packed) => {
                let packed_path = out.join(format!("{number}.gz"));
                fs::write(&packed_path, packed)?;
                included(&packed_path)
            }
            None => "None".into(),
        };
        let _ = writeln!(
            table,
            "    BuiltIn {{ path: {:?}, content: include_bytes!({:?}), brotli: {brotli}, gzip: {gzip} }},",
            name.display().to_string(),
            copy.display().to_string(),
        );
    }
    table.push_str("];\n");
    fs::write(out.join("console.rs"), table)
}

fn files_below(directory: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| extensions.contains(&extension))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn included(path: &Path) -> String {
    format!("Some(include_bytes!({:?}))", path.display().to_string())
}

/// The gzip form, where it is clearly smaller.
fn compressed(content: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if content.len() < WORTH_COMPRESSING {
        return Ok(None);
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    let packed = encoder.finish()?;
    Ok((packed.len() < content.len() * 9 / 10).then_some(packed))
}
