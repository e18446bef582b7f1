//! How objects are shown: `-o yaml|json|name|jsonpath|go-template|custom-columns`; tables are in `table`.

mod columns;
pub mod table;
mod template;

use serde_json::Value;

use crate::error::{Error, Result, fail};
use crate::flags::{Args, Flag, switch, text};
use crate::jsonpath::JsonPath;
use crate::{kyaml, output, yaml};

pub use columns::CustomColumns;
pub use template::Template;

pub const OUTPUT: &[Flag] = &[
    text("output", "", "Output format.").short('o'),
    text("template", "", "Template string or path to template file to use when -o=go-template, -o=go-template-file."),
    switch("show-managed-fields", "If true, keep the managedFields when printing objects in JSON or YAML format."),
    crate::flags::on("allow-missing-template-keys", "If true, ignore any errors in templates when a field or map key is missing in the template."),
];

pub enum Printer {
    Json,
    Yaml,
    Kyaml,
    Name,
    JsonPath(JsonPath),
    Template(Template),
    Columns(CustomColumns),
}

const FORMATS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,name,template,templatefile,wide,yaml";

/// A document as `json`, `yaml` or `kyaml`, for commands that know no other.
pub fn document(format: &str, value: &Value) -> Result<String> {
    Ok(match format {
        "json" => json(value) + "\n",
        "yaml" => yaml::emit(value),
        "kyaml" => kyaml::emit(value),
        other => return fail(format!("unable to match a printer suitable for the output format \"{other}\", allowed formats are: json,kyaml,yaml")),
    })
}

impl Printer {
    /// None: for people (nothing, or `wide`).
    pub fn of(args: &Args) -> Result<Option<Self>> {
        let format = args.text("output");
        let (name, inline) = format.split_once('=').unwrap_or((format, ""));
        let given = || if inline.is_empty() { args.text("template").to_owned() } else { inline.to_owned() };
        let option = if name == "custom-columns-file" { "" } else { "--" };
        let file = |path: &str| {
            std::fs::read_to_string(path).map_err(|error| {
                let reason = if error.kind() == std::io::ErrorKind::NotFound { "no such file or directory".to_owned() } else { error.to_string() };
                Error::Message(format!("error reading {option}template {path}, open {path}: {reason}"))
            })
        };
        Ok(Some(match name {
            "" if args.changed("template") => Printer::Template(Template::parse(args.text("template"))?),
            "" | "wide" => return Ok(None),
            "json" => Printer::Json,
            "yaml" => Printer::Yaml,
            "kyaml" => Printer::Kyaml,
            "name" => Printer::Name,
            "jsonpath" | "jsonpath-as-json" | "jsonpath-file" => {
                let text = if name == "jsonpath-file" { file(&given())? } else { given() };
                if text.is_empty() {
                    return fail("template format specified but no template given");
                }
                Printer::JsonPath(JsonPath::parse(&text).map_err(|error| Error::Message(format!("error parsing jsonpath {text}, {error}")))?.allow_missing())
            }
            "go-template" | "template" | "go-template-file" | "templatefile" => {
                let text = given();
                if text.is_empty() {
                    return fail("template format specified but no template given");
                }
                Printer::Template(Template::parse(&if name.ends_with("file") { file(&text)? } else { text })?)
            }
            "custom-columns" => Printer::Columns(CustomColumns::parse(inline, args.on("no-headers"))?),
            "custom-columns-file" => Printer::Columns(CustomColumns::file(&file(inline)?, args.on("no-headers"))?),
            _ => return fail(format!("unable to match a printer suitable for the output format \"{format}\", allowed formats are: {FORMATS}")),
        }))
    }

    pub fn print(&self, object: &Value, label: &str) -> Result<()> {
        match self {
            Printer::Json => output::line(json(object)),
            Printer::Yaml => output::write(yaml::emit(object).as_bytes()),
            Printer::Kyaml => output::write(kyaml::emit(object).as_bytes()),
            Printer::Name => output::line(label),
            Printer::JsonPath(path) => output::write(path.render(object).map_err(|error| Error::Message(format!("error executing jsonpath: {error}")))?.as_bytes()),
            Printer::Template(template) => output::write(template.render(object)?.as_bytes()),
            Printer::Columns(columns) => output::write(columns.render(object)?.as_bytes()),
        }
        Ok(())
    }
}

/// As Go's encoder writes it: four spaces, and `<`, `>`, `&` escaped.
pub fn json(value: &Value) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    // Writing a value into memory cannot fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(bytes).unwrap_or_default().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

pub fn hide_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Prints `object` in the asked form, or `label verb` for people (`deployment.apps/web created`).
pub fn done(args: &Args, object: &Value, label: &str, verb: &str) -> Result<()> {
    let suffix = match args.text("dry-run") {
        "client" | "unchanged" => " (dry run)",
        "server" => " (server dry run)",
        _ => "",
    };
    said(args, object, label, &format!("{verb}{suffix}"))
}

/// The same without a word about a dry run: upstream's `patch` loses it.
pub fn said(args: &Args, object: &Value, label: &str, verb: &str) -> Result<()> {
    match Printer::of(args)? {
        Some(printer) => {
            let mut object = object.clone();
            if !args.on("show-managed-fields") {
                hide_managed_fields(&mut object);
            }
            printer.print(&object, label)
        }
        None => {
            output::line(format!("{label} {verb}"));
            Ok(())
        }
    }
}
