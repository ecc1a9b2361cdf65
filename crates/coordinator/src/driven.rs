//! Streams that go on whether their reader asks for more or not.
//!
//! A stream that is polled only by its reader may be left lying in the middle of a look at the store: the reader is a
//! connection that takes no more for now, or follows other streams too and waits for one of them. What that look holds (a place
//! in a queue, a connection to the database) it would hold until the reader comes back, and a few such readers would
//! keep everybody else from reading. So the stream has a task of its own; one item waits for the reader.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The same stream, driven by a task that ends with it. Two items are read ahead.
pub(crate) fn driven<T: Send + 'static>(mut items: BoxStream<'static, T>) -> BoxStream<'static, T> {
    let (sender, receiver) = mpsc::channel(1);
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Some(item) = items.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    // The task goes with the set.
    stream::unfold((receiver, task), |(mut receiver, task)| async move {
        receiver.recv().await.map(|item| (item, (receiver, task)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn all_items_come_in_order() {
        let items: Vec<u32> = driven(stream::iter(0..100).boxed()).collect().await;
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_who_waits_elsewhere_keeps_nobody_from_reading() {
        let room = Arc::new(Semaphore::new(1));
        let look = |room: Arc<Semaphore>| {
            stream::once(async move {
                let _room = room.acquire().await;
                tokio::task::yield_now().await;
            })
        };
        let held = room.acquire().await;
        let mut waits = driven(look(room.clone()).boxed());
        // It stands in the queue, and is not looked at again before another has had its turn.
        assert!(futures_util::poll!(waits.next()).is_pending());
        tokio::task::yield_now().await;
        drop(held);
        look(room).collect::<Vec<()>>().await;
        assert_eq!(waits.next().await, Some(()));
    }

    #[tokio::test]
    async fn a_dropped_stream_ends_its_task() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let stream = driven(
            stream::once(async move {
                let _held = held;
                std::future::pending::<()>().await;
            })
            .boxed(),
        );
        drop(stream);
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
