//! Connects agents, orchestrators and operators to a broker.
