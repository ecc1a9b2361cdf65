//! What both sides of the wire share: requests, answers, errors and the traits of client and worker.
