//! Output: taking it, following it, and showing it shortened.

mod fields;
mod follow;
mod shorten;

pub(crate) use fields::{Fields, Shortened};
pub(crate) use follow::follow;

use executr_api::output::OutputChunk;
use executr_api::{ApiError, ErrorCode, Fence};
use executr_store::{AppendAnswer, Signal};

use crate::core::Core;
use crate::refusal;

/// About so many bytes of output are read from the store at a time.
const SLICE: usize = 256 << 10;

impl Core {
    /// Appends output of a running attempt. Returns where the output ends now.
    pub(crate) async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<u64, ApiError> {
        match self.store.append_output(fence, chunk).await.map_err(refusal::store)? {
            AppendAnswer::Appended { end } => {
                self.watches.output(fence.job);
                self.store.publish(Signal::Output(fence.job));
                Ok(end)
            }
            AppendAnswer::Gap { end } => {
                Err(ApiError::new(ErrorCode::OutputGap, format!("the output ends at {end}; send from there on"))
                    .with("end", end))
            }
            AppendAnswer::LeaseLost => Err(ApiError::new(
                ErrorCode::LeaseLost,
                format!("the lease on {fence} is no longer held; end the attempt and drop its output"),
            )),
        }
    }
}
