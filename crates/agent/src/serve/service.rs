//! The calls of `service Agent`, each of which delegates.

use std::sync::Arc;

use executr_agent_protocol::v1::agent_server::Agent;
use executr_agent_protocol::v1::{HelloRequest, HelloResponse, ListTasksRequest, ListTasksResponse, TaskRequest};
use tonic::{Request, Response, Status, Streaming};

use super::hello::Facts;
use super::tasks::{TaskStream, Tasks};

/// What all calls share.
pub(super) struct Shared {
    pub(super) tasks: Arc<Tasks>,
    pub(super) facts: Facts,
}

/// The service.
#[derive(Clone)]
pub(super) struct AgentCalls(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Agent for AgentCalls {
    type TaskStream = TaskStream;

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        Ok(Response::new(self.0.facts.hello(request.get_ref()).await?))
    }

    async fn task(&self, request: Request<Streaming<TaskRequest>>) -> Result<Response<TaskStream>, Status> {
        Ok(Response::new(self.0.tasks.open(request.into_inner()).await?))
    }

    async fn list_tasks(&self, _: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        Ok(Response::new(ListTasksResponse { tasks: self.0.tasks.list() }))
    }
}
