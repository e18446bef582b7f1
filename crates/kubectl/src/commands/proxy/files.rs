//! Static files of `kubectl proxy --www`: a file, a folder's index.html, or a list of what is in it; nothing outside of the folder.
//!
//! Mirrors Go's http.FileServer.

use std::path::{Component, Path, PathBuf};

use super::{answer, plain};

/// What a browser takes for what by a name's end.
const KINDS: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"), ("htm", "text/html; charset=utf-8"), ("css", "text/css; charset=utf-8"), ("js", "text/javascript; charset=utf-8"), ("json", "application/json"),
    ("svg", "image/svg+xml"), ("png", "image/png"), ("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("gif", "image/gif"), ("wasm", "application/wasm"), ("xml", "text/xml; charset=utf-8"), ("pdf", "application/pdf"),
];

/// `rest` is the path below the prefix, `whole` as it was asked for.
pub fn serve(folder: &Path, rest: &str, whole: &str) -> Vec<u8> {
    let missing = || plain("404 Not Found", "404 page not found");
    let decoded = percent_encoding::percent_decode_str(rest).decode_utf8_lossy().into_owned();
    let inside: PathBuf = Path::new(&decoded).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    if Path::new(&decoded).components().any(|part| part == Component::ParentDir) {
        return missing();
    }
    let path = folder.join(inside);
    let Ok(file) = std::fs::metadata(&path) else { return missing() };
    if !file.is_dir() {
        return show(&path).unwrap_or_else(missing);
    }
    if !whole.ends_with('/') {
        let name = whole.rsplit('/').next().unwrap_or("");
        return format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {name}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
    }
    if let Some(index) = show(&path.join("index.html")) {
        return index;
    }
    let Ok(entries) = std::fs::read_dir(&path) else { return missing() };
    let mut names: Vec<String> = entries.flatten().map(|entry| format!("{}{}", entry.file_name().to_string_lossy(), if entry.path().is_dir() { "/" } else { "" })).collect();
    names.sort();
    let mut page = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        let link: String = percent_encoding::utf8_percent_encode(&name, percent_encoding::CONTROLS).collect();
        let text = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        page.push_str(&format!("<a href=\"{}\">{}</a>\n", text(&link), text(&name)));
    }
    page.push_str("</pre>\n");
    answer("200 OK", "text/html; charset=utf-8", page.as_bytes())
}

fn show(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok()?;
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or("");
    let known = KINDS.iter().find(|(known, _)| *known == end).map(|(_, kind)| *kind);
    let kind = known.unwrap_or(if std::str::from_utf8(&bytes).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" });
    Some(answer("200 OK", kind, &bytes))
}
