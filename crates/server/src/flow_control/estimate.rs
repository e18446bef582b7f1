//! How much work a request is, before it is done: seats for lists by how many objects they look at, for writes by how many watch.
//!
//! Mirrors apiserver/pkg/util/flowcontrol/request (list_work_estimator.go by objects, mutating_work_estimator.go), with this difference: everything is read from memory here,
//! so a page counts as what it holds and a namespace as what lies in it. What lies there is counted only as far as it makes a difference.

use super::queues::Work;
use crate::api::Api;
use crate::authorization::Attributes;
use crate::path::{Query, ResourcePath};

const OBJECTS_PER_SEAT: usize = 100;
const WATCHES_PER_SEAT: usize = 10;
const MAX_LIST_SEATS: usize = 10;
/// More objects need no more seats: they are not counted.
const COUNTED_MAX: usize = OBJECTS_PER_SEAT * MAX_LIST_SEATS + 1;
const MAX_WRITE_SEATS: usize = 10;
/// What telling the watchers of one seat takes.
const EVENT_SECONDS: f64 = 0.005;

/// A request, as it is estimated.
pub struct Request<'a> {
    pub attributes: &'a Attributes,
    pub target: Option<&'a ResourcePath>,
    pub query: &'a Query,
}

/// `max_seats` is the level's; 0 when it has none.
pub fn work(api: &Api, request: &Request<'_>, max_seats: usize) -> Work {
    let Some(target) = request.target else { return Work::of(1) };
    let Some(row) = api.serving.rows().find(&target.group, &target.version, &target.plural) else { return Work::of(1) };
    let namespace = target.namespace.as_deref().filter(|_| row.namespaced());
    match request.attributes.verb.as_str() {
        verb @ ("list" | "watch") => {
            let query = request.query;
            if target.name.is_some() || query.text("fieldSelector").split(',').any(|term| term.starts_with("metadata.name=")) {
                return Work::of(1);
            }
            // A watch that starts from a version sends only what is new.
            if verb == "watch" && !query.flag("sendInitialEvents") && !matches!(query.get("resourceVersion").unwrap_or(""), "" | "0") {
                return Work::of(1);
            }
            let selects = !query.text("fieldSelector").is_empty() || !query.text("labelSelector").is_empty();
            let limit = query.text("limit").parse().ok().filter(|limit| *limit > 0 && !selects);
            Work::of(list_seats(api.store.count_at_most(&row.key_prefix(namespace), COUNTED_MAX), limit, max_seats))
        }
        // A token makes no event.
        "create" if target.plural == "serviceaccounts" && target.subresource.as_deref() == Some("token") => Work::of(1),
        "create" | "update" | "patch" | "delete" => write(api.flow_control.watchers.count(&row.prefix, namespace.unwrap_or_default()), max_seats),
        _ => Work::of(1),
    }
}

fn capped(max_seats: usize, most: usize) -> usize {
    if max_seats == 0 { most } else { max_seats.min(most) }
}

fn list_seats(objects: usize, limit: Option<usize>, max_seats: usize) -> usize {
    objects.min(limit.unwrap_or(usize::MAX)).div_ceil(OBJECTS_PER_SEAT).clamp(1, capped(max_seats, MAX_LIST_SEATS))
}

fn write(watchers: usize, max_seats: usize) -> Work {
    if watchers < WATCHES_PER_SEAT {
        return Work::of(1);
    }
    let seats = watchers.div_ceil(WATCHES_PER_SEAT);
    let final_seats = seats.min(capped(max_seats, MAX_WRITE_SEATS));
    Work { seats: 1, final_seats, final_seconds: EVENT_SECONDS * seats as f64 / final_seats as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_by_objects_and_writes_by_watchers() {
        for (objects, limit, max_seats, expected) in [(0, None, 8, 1), (100, None, 8, 1), (101, None, 8, 2), (5_000, None, 8, 8), (5_000, None, 0, 10), (5_000, Some(300), 8, 3), (50, Some(300), 8, 1)] {
            assert_eq!(list_seats(objects, limit, max_seats), expected, "{objects} {limit:?} {max_seats}");
        }
        assert_eq!(write(9, 8), Work::of(1));
        assert_eq!(write(20, 8), Work { seats: 1, final_seats: 2, final_seconds: 0.005 });
        // A thousand watchers: as much work, on the seats there are.
        assert_eq!(write(1_000, 10), Work { seats: 1, final_seats: 10, final_seconds: 0.05 });
    }
}
