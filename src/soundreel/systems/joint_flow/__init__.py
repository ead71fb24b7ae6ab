"""joint_flow: feed-forward codecs with a time axis, and one transformer for every task."""
