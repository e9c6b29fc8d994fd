"""Looking inside a net: filters, maps, units, dreams, features, and how far its pictures can be trusted."""
