//! Facts kept by hand, and the Go markers' meaning.
//!
//! `facts.txt` has a word, a type and what the word says of it:
//! `ptr` fields which are pointers in Go and so kept when zero; `always` fields encoded even when zero, `omit` required ones that are not;
//! `optional` fields which the library takes for required; `go` Go's names of fields' types, for error messages; `enum` the values a field can have; `atomic` a type that is owned as a whole;
//! `field` one field which 1.36 added: its protobuf tag and Go's markers.

use anyhow::{Context, Result, bail};

use super::{Field, Type, Types};

const PREFIXES: &[(&str, &str)] = &[
    ("meta.", "io.k8s.apimachinery.pkg.apis.meta."),
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis.apiregistration."),
    ("version.", "io.k8s.apimachinery.pkg.version."),
];

/// `core.v1.Pod` -> `io.k8s.api.core.v1.Pod`
pub(super) fn full(short: &str) -> String {
    PREFIXES.iter().find_map(|(from, to)| short.strip_prefix(from).map(|rest| format!("{to}{rest}"))).unwrap_or_else(|| format!("io.k8s.api.{short}"))
}

pub(super) fn short(full: &str) -> String {
    PREFIXES
        .iter()
        .find_map(|(to, from)| full.strip_prefix(from).map(|rest| format!("{to}{rest}")))
        .unwrap_or_else(|| full.strip_prefix("io.k8s.api.").unwrap_or(full).to_owned())
}

pub(super) fn join(types: &mut Types, text: &str) -> Result<()> {
    for field in types.values_mut().flat_map(|ty| &mut ty.fields) {
        field.always = field.required;
    }
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split(' ');
        let (fact, name) = (words.next().unwrap_or(""), words.next().context("a fact about nothing")?);
        let ty = types.get_mut(&full(name)).with_context(|| format!("{name} is no type"))?;
        if fact == "atomic" {
            ty.atomic = true;
            continue;
        }
        if fact == "field" {
            let field = field(ty, words.next().unwrap_or(""))?;
            let (tags, found): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("tag="));
            field.tag = tags.first().map(|tag| tag["tag=".len()..].to_owned()).or(field.tag.take());
            marks(field, &found.into_iter().map(str::to_owned).collect::<Vec<_>>());
            continue;
        }
        for word in words {
            let (json, value) = word.split_once('=').unwrap_or((word, ""));
            let field = field(ty, json)?;
            match fact {
                "ptr" => (field.pointer, field.always) = (true, false),
                "always" => field.always = true,
                "omit" => field.always = false,
                "optional" => field.required = false,
                "go" => field.go = Some(value.to_owned()),
                "enum" => field.choices = Some(value.to_owned()),
                _ => bail!("{fact} is no fact"),
            }
        }
    }
    Ok(())
}

fn field<'a>(ty: &'a mut Type, json: &str) -> Result<&'a mut Field> {
    ty.fields.iter_mut().find(|field| field.json == json).with_context(|| format!("{json} is no field"))
}

/// `+listType=map`, `+listMapKey=port`, `+patchStrategy=merge`, `+patchMergeKey=port`, `+default="TCP"`, `+mapType=atomic`
pub(super) fn marks(field: &mut Field, marks: &[String]) {
    let value = |name: &str| marks.iter().find_map(|mark| mark.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    let keys: Vec<&str> = marks.iter().filter_map(|mark| mark.strip_prefix("+listMapKey=")).collect();
    match value("+listType").as_deref() {
        Some("map") => field.list = Some(format!("map:{}", keys.join(","))),
        Some(other) => field.list = Some(other.to_owned()),
        None => {}
    }
    field.merge_key = value("+patchMergeKey").or(field.merge_key.take());
    field.strategy = value("+patchStrategy").or(field.strategy.take());
    field.default = value("+default").filter(|value| !value.starts_with("ref(")).or(field.default.take());
    field.map_atomic |= value("+mapType").as_deref() == Some("atomic") || value("+structType").as_deref() == Some("atomic");
}
