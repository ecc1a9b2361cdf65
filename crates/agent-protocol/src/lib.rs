//! The protocol between a driver and the agent inside a sandbox, and the driver.
