"""Where workers live, behind one protocol. An engine makes and ends processes; it knows nothing of queues and units."""
