use super::{log::TOMBSTONES_MAX, *};

fn set(name: &str, body: &'static [u8]) -> Change {
    Change::Set { name: name.into(), body: Bytes::from_static(body) }
}

fn remove(name: &str) -> Change {
    Change::Remove { name: name.into() }
}

fn names(batch: &Batch) -> Vec<String> {
    batch.resources.iter().map(|bytes| wire::EncodedResource::decode(bytes.clone()).unwrap().name).collect()
}

#[test]
fn an_equal_body_is_no_change_and_changes_of_one_name_merge() {
    let feed = Feed::new("t");
    assert!(feed.publish([set("a", b"1"), set("b", b"1"), set("a", b"2")]).is_empty());
    let head = feed.progress().head;
    let batch = feed.read_after(Range { after: 0, bound: head }, Part::Both, usize::MAX).unwrap();
    assert_eq!((names(&batch), batch.done), (vec!["b".to_owned(), "a".to_owned()], true));
    assert!(feed.publish([set("a", b"2"), remove("unknown")]).is_empty());
    assert_eq!(feed.progress().head, head);
    assert!(feed.publish([remove("a")]).is_empty());
    let batch =
        feed.read_after(Range { after: head, bound: feed.progress().head }, Part::Both, usize::MAX).unwrap();
    assert_eq!((names(&batch), batch.removed), (vec![], vec!["a".to_owned()]));
    assert_eq!(feed.len(), 1);
}

#[test]
fn one_change_goes_to_many_feeds_each_at_its_own_position() {
    let feeds = [Feed::new("t"), Feed::new("t"), Feed::new("other")];
    assert!(feeds[1].publish([set("b", b"1")]).is_empty());
    assert!(Feed::publish_to_all(&feeds, &set("a", b"1")).is_empty());
    assert!(Feed::publish_to_all(&feeds, &set("a", b"1")).is_empty());
    for (feed, head) in feeds.iter().zip([1, 2, 1]) {
        assert_eq!(feed.progress().head, head);
        let batch = feed.read_after(Range { after: head - 1, bound: head }, Part::Both, usize::MAX).unwrap();
        let resource = wire::EncodedResource::decode(batch.resources[0].clone()).unwrap();
        assert_eq!(
            (resource.name.as_str(), resource.resource.unwrap().type_url.as_str()),
            ("a", feed.type_url())
        );
    }
    let large = Change::Set { name: "a".into(), body: vec![0; RESOURCE_BYTES_MAX + 1].into() };
    assert_eq!(Feed::publish_to_all(&feeds, &large).len(), 3);
}

#[test]
fn a_complete_state_removes_what_it_does_not_name() {
    let feed = Feed::new("t");
    assert!(feed.publish([set("a", b"1"), set("b", b"1")]).is_empty());
    assert!(!feed.is_synced());
    let head = feed.progress().head;
    assert!(feed.replace([("b".into(), Bytes::from_static(b"1"))]).is_empty());
    let batch =
        feed.read_after(Range { after: head, bound: feed.progress().head }, Part::Both, usize::MAX).unwrap();
    assert_eq!((names(&batch), batch.removed), (vec![], vec!["a".to_owned()]));
    assert!(feed.is_synced());
}

#[test]
fn a_resource_that_fits_no_message_is_refused_and_its_old_state_stays() {
    let feed = Feed::new("t");
    assert!(feed.replace([("a".into(), Bytes::from_static(b"1"))]).is_empty());
    let huge = Bytes::from(vec![0; RESOURCE_BYTES_MAX]);
    for refused in [
        feed.publish([Change::Set { name: "a".into(), body: huge.clone() }]),
        feed.replace([("a".into(), huge)]),
    ] {
        assert_eq!(refused.first().map(|r| &*r.name), Some("a"));
    }
    assert_eq!((feed.len(), feed.progress().head), (1, 1));
}

#[test]
fn forgets_old_removals_and_says_so_to_readers_that_missed_them() {
    let feed = Feed::new("t");
    let count = TOMBSTONES_MAX + 2;
    let all = |change: fn(&str) -> Change| (0..count).map(move |n| change(&n.to_string()));
    assert!(feed.publish(all(|name| set(name, b"1"))).is_empty());
    let before = feed.progress().head;
    assert!(feed.publish(all(remove)).is_empty());
    let head = feed.progress().head;
    let read = |after, part| feed.read_after(Range { after, bound: head }, part, usize::MAX);
    assert_eq!(read(before, Part::Both).unwrap_err(), TooFarBehind);
    assert!(read(before, Part::Sets).is_ok());
    assert_eq!(read(before + 2, Part::Removals).unwrap().removed.len(), TOMBSTONES_MAX);
    assert!(feed.is_empty());
}
