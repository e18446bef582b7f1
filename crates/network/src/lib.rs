//! Links, addresses, routes and nftables over netlink: the pod network and the service maps
