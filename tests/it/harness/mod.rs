//! The words in which the tests speak: origins, the gateway between, and clients.
//!
//! Everything blocks, in threads, with a deadline; nothing sleeps to wait for something to have happened.

mod client;
mod dns;
mod gateway;
pub(crate) mod names;
mod origin;
mod patient;
mod proof;
mod scripted;
mod wait;
mod websocket;
mod wire;
mod worker;

pub(crate) use client::{Connection, H2, Request, Response, get};
pub(crate) use dns::NameServer;
pub(crate) use gateway::{Gateway, Running, edgeway};
pub(crate) use origin::{Origin, Seen, reserved_port};
pub(crate) use patient::{GrpcPatient, Mood, Patient, filled, gateway_before};
pub(crate) use scripted::Answer;
pub(crate) use wait::{DEADLINE, await_some, eventually};
pub(crate) use websocket::WebSocket;
pub(crate) use wire::Wire;
pub(crate) use worker::{Pace, Worker};
