//! `USER` and `--chown`: names looked up in the image's own /etc/passwd and /etc/group.

use std::path::Path;

use crate::view::RootView;

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    #[error("reading the image's user files: {0}")]
    Read(#[from] std::io::Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserIds {
    pub uid: u32,
    pub gid: u32,
    /// Groups that list the user, for a user given without a group.
    pub groups: Vec<u32>,
    pub home: String,
    /// A group was given, or the user has an entry in passwd: otherwise `gid` is only a default.
    pub gid_known: bool,
}

/// `name`, `uid`, `name:group`, `uid:gid` and mixtures; empty is root. A bare number need not exist.
pub fn lookup(view: &RootView, text: &str) -> Result<UserIds, LookupError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(view, "etc/passwd")?;
    let groups = read(view, "etc/group")?;
    let number = user.parse::<u32>().ok();
    // name:password:uid:gid:gecos:home:shell
    let entry = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6 && (fields[0] == user || number.is_some_and(|n| fields[2].parse() == Ok(n)))
    });
    let mut ids = match (&entry, number) {
        (Some(fields), _) => UserIds {
            uid: fields[2].parse().map_err(|_| LookupError::User(user.to_owned()))?,
            gid: fields[3].parse().map_err(|_| LookupError::User(user.to_owned()))?,
            groups: Vec::new(),
            home: fields[5].to_owned(),
            gid_known: true,
        },
        (None, Some(uid)) => UserIds { uid, gid: 0, groups: Vec::new(), home: "/".to_owned(), gid_known: false },
        (None, None) => return Err(LookupError::User(user.to_owned())),
    };
    match group {
        Some(group) => {
            ids.gid_known = true;
            ids.gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => group_lines(&groups)
                    .find(|(name, _, _)| *name == group)
                    .map(|(_, gid, _)| gid)
                    .ok_or_else(|| LookupError::Group(group.to_owned()))?,
            };
        }
        None => {
            let name = entry.map(|fields| fields[0].to_owned()).unwrap_or_default();
            ids.groups = group_lines(&groups)
                .filter(|(_, gid, members)| *gid != ids.gid && members.split(',').any(|m| !m.is_empty() && m == name))
                .map(|(_, gid, _)| gid)
                .collect();
        }
    }
    Ok(ids)
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some((*fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3).copied().unwrap_or("")))
    })
}

fn read(view: &RootView, path: &str) -> std::io::Result<String> {
    Ok(view.read(Path::new(path))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34:w:/srv:/bin/sh\n").unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:40:a,web\n").unwrap();
        let view = RootView::new(vec![dir.path().to_owned()]);
        let ids = |text: &str| lookup(&view, text).map(|i| (i.uid, i.gid, i.groups, i.home)).map_err(|e| e.to_string());
        assert_eq!(ids(""), Ok((0, 0, vec![], "/root".into())));
        assert_eq!(ids("web"), Ok((33, 34, vec![40], "/srv".into())));
        assert_eq!(ids("33"), Ok((33, 34, vec![40], "/srv".into())));
        assert_eq!(ids("web:logs"), Ok((33, 40, vec![], "/srv".into())));
        assert_eq!(ids("1000"), Ok((1000, 0, vec![], "/".into())));
        assert_eq!(ids("1000:7"), Ok((1000, 7, vec![], "/".into())));
        assert_eq!(ids("nobody"), Err("unable to find user nobody: no matching entries in passwd file".into()));
        assert!(ids("web:nogroup").is_err());
    }
}
