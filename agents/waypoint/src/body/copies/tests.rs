use http_body_util::BodyExt;

use super::*;

fn part(length: usize) -> Bytes {
    Bytes::from(vec![b'a'; length])
}

async fn read(body: &mut Copied) -> Option<Result<usize, Cut>> {
    let frame = body.frame().await?;
    Some(frame.map(|frame| frame.data_ref().map_or(0, Bytes::len)))
}

#[tokio::test]
async fn a_copy_has_every_part_the_trailers_and_the_end() {
    let (copying, mut copied, ended) = copy(&SizeHint::with_exact(7));
    copying.put(&part(3));
    assert_eq!((copied.size_hint().exact(), read(&mut copied).await), (Some(7), Some(Ok(3))));
    let later = async {
        copying.put(&part(4));
        copying.put_trailers(&HeaderMap::from_iter([(http::header::ETAG, "e".parse().unwrap())]));
        copying.whole();
    };
    let (got, ()) = tokio::join!(read(&mut copied), later);
    assert_eq!((got, copied.size_hint().exact()), (Some(Ok(4)), Some(0)));
    ended.wait().await;
    assert_eq!((ended.cut(), copied.is_end_stream()), (None, false));
    assert!(copied.frame().await.unwrap().unwrap().into_trailers().unwrap().contains_key("etag"));
    assert!(copied.is_end_stream() && copied.frame().await.is_none());
}

#[tokio::test]
async fn a_reader_that_is_too_slow_loses_its_copy_and_holds_nobody_up() {
    let (copying, mut copied, ended) = copy(&SizeHint::default());
    copying.put(&part(QUEUE_MAX_BYTES));
    assert_eq!(read(&mut copied).await, Some(Ok(QUEUE_MAX_BYTES)));
    copying.put(&part(QUEUE_MAX_BYTES));
    copying.put(&part(1));
    assert_eq!(read(&mut copied).await, Some(Err(Cut::Behind)));
    copying.whole();
    ended.wait().await;
    assert_eq!(ended.cut(), Some(Cut::Behind), "it stays lost");
}

#[tokio::test]
async fn a_body_that_breaks_off_has_no_whole_copy() {
    let (copying, mut copied, ended) = copy(&SizeHint::default());
    copying.put(&part(3));
    drop(copying);
    assert_eq!(read(&mut copied).await, Some(Err(Cut::Broken)));
    assert_eq!(ended.cut(), Some(Cut::Broken));
}

#[tokio::test]
async fn what_nobody_reads_is_not_kept() {
    let (copying, copied, ended) = copy(&SizeHint::default());
    drop(copied);
    copying.put(&part(QUEUE_MAX_BYTES));
    copying.whole();
    assert_eq!((ended.cut(), copying.0.state.borrow().frames.len()), (Some(Cut::Unread), 0));
}
