//! Finds and loads the ONNX Runtime library.
//!
//! The `ort` crate waits for ever on a library that is missing or too old, so it is opened and asked for its version
//! here first. One library serves the whole process: the first that loads.

use std::{
    ffi::CStr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Where Python wheels keep it, below a virtual environment.
const IN_VENV: &str = "site-packages/onnxruntime/capi";

/// What to do where there is none.
pub const INSTALL: &str = "`pip install onnxruntime` into `.venv`, or set speech.tts.onnxruntime to libonnxruntime.so";

/// Paths at which the library may lie, in the order in which they are tried.
pub fn candidates(configured: &str, models_dir: &Path) -> Vec<PathBuf> {
    if !configured.is_empty() {
        return vec![PathBuf::from(configured)];
    }
    let mut found = libraries_in(models_dir);
    found.extend(std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from));
    for python in folders_in(Path::new(".venv/lib"), "python3") {
        found.extend(libraries_in(&python.join(IN_VENV)));
    }
    found
}

fn folders_in(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// `libonnxruntime.so`, with or without a version after it.
fn libraries_in(dir: &Path) -> Vec<PathBuf> {
    folders_in(dir, "libonnxruntime.so")
}

/// Loads the library at `path` for the whole process; a second call with any path is answered by the first one that
/// went well. Gives its version. An error says what is wrong.
pub fn load(path: &Path) -> Result<String, String> {
    static LOADED: Mutex<Option<String>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(version) = &*loaded {
        return Ok(version.clone());
    }
    let version = probe(path)?;
    // An absolute path: `ort` looks for others beside the executable.
    let path = path.canonicalize().map_err(|error| format!("`{}`: {error}", path.display()))?;
    let environment = ort::init_from(&path).map_err(|error| error.to_string())?;
    environment.with_name("viva").with_telemetry(false).commit();
    *loaded = Some(version.clone());
    Ok(version)
}

/// Opens the library and asks for its version.
fn probe(path: &Path) -> Result<String, String> {
    let shown = path.display();
    if !path.is_file() {
        return Err(format!("the ONNX Runtime library `{shown}` does not exist: {INSTALL}"));
    }
    // SAFETY: opening a library runs its initialisers. The path is the operator's, who trusts it to run in the server.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| format!("`{shown}` cannot be loaded as a library: {error}"))?;
    // SAFETY: this is the one function of ONNX Runtime's stable interface, with this type in all versions.
    let version = unsafe {
        let base = library
            .get::<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase>(b"OrtGetApiBase")
            .map_err(|_| format!("`{shown}` is not ONNX Runtime"))?;
        let base = base();
        if base.is_null() {
            return Err(format!("`{shown}` is not a working ONNX Runtime"));
        }
        CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned()
    };
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    if minor < ort::MINOR_VERSION {
        return Err(format!("`{shown}` is ONNX Runtime {version}; 1.{} or newer is needed", ort::MINOR_VERSION));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_wrong_library_is_told_and_does_not_hang() {
        let missing = load(Path::new("/nonexistent/libonnxruntime.so"));
        assert!(missing.is_err_and(|e| e.contains("does not exist") && e.contains("pip install")) || loaded_already());
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "no library").unwrap();
        assert!(probe(text.path()).unwrap_err().contains("cannot be loaded"));
        let libc = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib/x86_64-linux-gnu/libm.so.6"];
        for other in libc.iter().map(Path::new).filter(|p| p.is_file()) {
            assert!(probe(other).unwrap_err().contains("not ONNX Runtime"));
        }
    }

    /// Another test of this process may have loaded the real one.
    fn loaded_already() -> bool {
        load(Path::new("/nonexistent")).is_ok()
    }
}
