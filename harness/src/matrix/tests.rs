//! Files to cells, orders and shards.
