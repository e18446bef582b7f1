//! The order of a type's fields on the wire: by tag, those of messages that Go embeds within them.

use super::Field;

/// One step of writing a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A field, by its place in [`super::TypeInfo::fields`].
    Field(u16),
    /// An embedded message, which JSON knows nothing of, begins under this tag.
    Open(u8),
    Close,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Wire {
    pub steps: Box<[Step]>,
    /// Of each field the step it is written in; none of what is not on the wire (`kind`).
    pub ranks: Box<[Option<u16>]>,
}

impl Wire {
    pub(super) fn of(fields: &[Field]) -> Self {
        let mut order: Vec<usize> = (0..fields.len()).filter(|at| !fields[*at].proto_tag.is_empty()).collect();
        order.sort_by_key(|at| &fields[*at].proto_tag);
        let mut steps = Vec::with_capacity(order.len());
        let mut ranks = vec![None; fields.len()];
        let mut inside: Vec<u8> = Vec::new();
        for at in order {
            let Some((_, around)) = fields[at].proto_tag.split_last() else { continue };
            let common = inside.iter().zip(around).take_while(|(a, b)| a == b).count();
            steps.extend(inside.drain(common..).map(|_| Step::Close));
            steps.extend(around[common..].iter().map(|tag| Step::Open(*tag)));
            inside.extend_from_slice(&around[common..]);
            ranks[at] = Some(steps.len() as u16);
            steps.push(Step::Field(at as u16));
        }
        steps.extend(inside.iter().map(|_| Step::Close));
        Self { steps: steps.into(), ranks: ranks.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::of;

    #[test]
    fn embedded_messages_open_and_close() {
        let info = of("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations").unwrap();
        let steps: Vec<String> = info
            .wire
            .steps
            .iter()
            .map(|step| match step {
                Step::Field(at) => info.fields[usize::from(*at)].name.to_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(steps, ["resourceNames", "Open(2)", "operations", "Open(2)", "apiGroups", "apiVersions", "resources", "scope", "Close", "Close"]);
    }
}
