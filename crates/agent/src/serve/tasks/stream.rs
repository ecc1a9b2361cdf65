//! One caller's stream: what it is told, and what it says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use executr_agent_protocol::INPUT_WINDOW;
use executr_agent_protocol::v1::task_request::Message as Said;
use executr_agent_protocol::v1::task_response::Message;
use executr_agent_protocol::v1::{Attached, TaskRequest, TaskResponse};
use futures_core::Stream;
use tonic::{Status, Streaming};

use super::entry::{Entry, Order};

/// What a caller is told. Dropped, the caller has gone.
pub(in crate::serve) struct TaskStream {
    entry: Arc<Entry>,
    reader: u64,
    /// The answer to its attaching.
    first: Option<Attached>,
    over: bool,
}

impl TaskStream {
    pub(super) fn new(entry: Arc<Entry>, reader: u64, first: Option<Attached>) -> Self {
        Self { entry, reader, first, over: false }
    }
}

impl Stream for TaskStream {
    type Item = Result<TaskResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(TaskResponse { message: Some(Message::Attached(first)) })));
        }
        let next = self.entry.poll(self.reader, context);
        next.map(|next| match next {
            Some(Ok(message)) => Some(Ok(TaskResponse { message: Some(message) })),
            Some(Err(status)) => {
                self.over = true;
                Some(Err(status))
            }
            None => {
                self.over = true;
                None
            }
        })
    }
}

impl Drop for TaskStream {
    fn drop(&mut self) {
        self.entry.detach(self.reader);
    }
}

/// Takes what a caller says, until it says nothing more or is gone.
pub(super) async fn listen(entry: Arc<Entry>, reader: u64, mut said: Streaming<TaskRequest>) {
    loop {
        match said.message().await {
            Ok(Some(TaskRequest { message: Some(message) })) => {
                if let Err(status) = hear(&entry, message).await {
                    entry.refuse(reader, status);
                    return;
                }
            }
            Ok(Some(TaskRequest { message: None })) => {
                entry.refuse(reader, Status::invalid_argument("a message of a kind unknown here"));
                return;
            }
            Ok(None) => return entry.half_close(reader),
            // Gone: the other direction says so, too.
            Err(_) => return,
        }
    }
}

async fn hear(entry: &Entry, message: Said) -> Result<(), Status> {
    match message {
        Said::Start(_) | Said::Attach(_) => {
            return Err(Status::invalid_argument("`start` and `attach` are said first, and once"));
        }
        Said::Input(input) => {
            entry.input(input.offset, input.data, input.last)?;
            // Whoever sends more than the process takes waits, as with any pipe.
            while entry.input_waiting() > INPUT_WINDOW {
                entry.to_pump.notified().await;
            }
        }
        Said::Resize(resize) => entry.numbered(resize.number, Order::Resize(resize.rows, resize.columns)),
        Said::Signal(signal) => entry.numbered(signal.number, Order::Signal(signal.signal)),
        Said::End(end) => entry.order(Order::End(Duration::from_millis(end.grace_ms))),
        Said::Acknowledge(acknowledge) => entry.acknowledge(&acknowledge.received.unwrap_or_default()),
    }
    Ok(())
}
