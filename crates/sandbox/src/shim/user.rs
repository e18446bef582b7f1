//! Who a container's process is: numbers and names looked up in the container's own /etc/passwd and /etc/group.
//!
//! Mirrors containerd's `WithUser`, `WithAdditionalGIDs` and runc's lookup of the home directory. Pure: the two files are passed in as text.

use crate::cri::User;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LookupError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
    #[error("uids and gids must be in range 0-2147483647")]
    Range,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

/// Name, number and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

pub fn identify(user: &User, passwd_text: &str, group_text: &str) -> Result<Identity, LookupError> {
    let (user_part, group_part) = match user.username.as_deref() {
        Some(name) => name.split_once(':').map_or((name, None), |(user, group)| (user, Some(group))),
        None => ("", None),
    };
    let mut uid = 0;
    let mut gid = None;
    let mut name = None;
    if let Some(number) = user.uid {
        uid = id(number)?;
    } else if !user_part.is_empty() {
        // A name wins over a number that looks the same.
        if let Some(entry) = passwd(passwd_text).find(|entry| entry.name == user_part) {
            uid = entry.uid;
        } else if let Ok(number) = user_part.parse::<i64>() {
            uid = id(number)?;
        } else {
            return Err(LookupError::User(user_part.to_owned()));
        }
    }
    let mut home = "";
    if let Some(entry) = passwd(passwd_text).find(|entry| entry.uid == uid) {
        gid = Some(entry.gid);
        name = Some(entry.name);
        home = entry.home;
    }
    if let Some(group) = group_part.filter(|group| !group.is_empty()) {
        gid = Some(match groups(group_text).find(|(name, _, _)| *name == group) {
            Some((_, gid, _)) => gid,
            None => id(group.parse::<i64>().map_err(|_| LookupError::Group(group.to_owned()))?)?,
        });
    }
    if let Some(number) = user.gid {
        gid = Some(id(number)?);
    }
    let gid = gid.unwrap_or(0);
    let mut all = vec![gid];
    if let Some(name) = name {
        all.extend(groups(group_text).filter(|(_, _, members)| members.split(',').any(|member| member == name)).map(|(_, gid, _)| gid));
    }
    for group in &user.supplemental_groups {
        all.push(id(*group)?);
    }
    let mut seen = Vec::with_capacity(all.len());
    for group in all {
        if !seen.contains(&group) {
            seen.push(group);
        }
    }
    Ok(Identity { uid, gid, groups: seen, home: if home.is_empty() { "/".to_owned() } else { home.to_owned() } })
}

fn id(number: i64) -> Result<u32, LookupError> {
    i32::try_from(number).ok().and_then(|number| u32::try_from(number).ok()).ok_or(LookupError::Range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/var/lib/redis:/bin/false\n\nbroken\n";
    const GROUP: &str = "root:x:0:\nredis:x:998:\naudio:x:29:redis,root\nwww:x:33:\n";

    fn run(username: Option<&str>, uid: Option<i64>, gid: Option<i64>, supplemental: &[i64]) -> Result<(u32, u32, Vec<u32>, String), LookupError> {
        let user = User { uid, gid, username: username.map(str::to_owned), supplemental_groups: supplemental.to_vec() };
        identify(&user, PASSWD, GROUP).map(|found| (found.uid, found.gid, found.groups, found.home))
    }

    #[test]
    fn table() {
        let ok = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
        assert_eq!(run(None, None, None, &[]), ok(0, 0, &[0, 29], "/root"));
        assert_eq!(run(Some("redis"), None, None, &[]), ok(999, 998, &[998, 29], "/var/lib/redis"));
        assert_eq!(run(Some("redis:www"), None, None, &[]), ok(999, 33, &[33, 29], "/var/lib/redis"));
        assert_eq!(run(Some("1234:5678"), None, None, &[7]), ok(1234, 5678, &[5678, 7], "/"));
        assert_eq!(run(Some("999"), None, None, &[]), ok(999, 998, &[998, 29], "/var/lib/redis"));
        assert_eq!(run(Some("redis"), Some(1000), None, &[]), ok(1000, 0, &[0], "/"));
        assert_eq!(run(None, Some(1000), Some(2000), &[3000, 2000]), ok(1000, 2000, &[2000, 3000], "/"));
        assert_eq!(run(Some("nobody"), None, None, &[]), Err(LookupError::User("nobody".to_owned())));
        assert_eq!(run(Some("redis:nogroup"), None, None, &[]), Err(LookupError::Group("nogroup".to_owned())));
        assert_eq!(run(None, Some(-1), None, &[]), Err(LookupError::Range));
    }
}
