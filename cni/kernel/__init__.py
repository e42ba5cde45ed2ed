"""The kernel in its own terms: netlink, namespaces, links, addresses, routes, sysctls, child processes."""
