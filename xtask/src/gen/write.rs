//! The table as text: `type` lines, each followed by its fields; the head of `crates/api/src/schema/parse.rs` says what the words mean.

use std::fmt::Write;

use super::{Type, Types, facts::short};

pub(super) fn text(types: &Types) -> String {
    let mut text = String::new();
    for (name, ty) in types {
        write_type(&mut text, name, ty);
    }
    text
}

fn write_type(text: &mut String, name: &str, ty: &Type) {
    let _ = write!(text, "type {}", short(name));
    if ty.kind {
        text.push_str(" kind");
    }
    if ty.atomic {
        text.push_str(" atomic");
    }
    text.push('\n');
    for field in &ty.fields {
        let depth = field.ty.len() - field.ty.trim_start_matches("[]").trim_start_matches("{}").trim_start_matches("[]").len();
        let _ = write!(text, " {} {}{}", field.json, &field.ty[..depth], short(&field.ty[depth..]));
        if let Some(tag) = &field.tag {
            let _ = write!(text, " #{tag}");
        }
        for (set, word) in [(field.required, "required"), (field.pointer, "ptr"), (field.always, "always"), (field.map_atomic, "atomic")] {
            if set {
                let _ = write!(text, " {word}");
            }
        }
        for (name, value) in [
            ("list", &field.list),
            ("merge", &field.merge_key),
            ("strategy", &field.strategy),
            ("go", &field.go),
            ("enum", &field.choices),
            ("default", &field.default),
        ] {
            if let Some(value) = value {
                let _ = write!(text, " {name}={value}");
            }
        }
        text.push('\n');
    }
}
