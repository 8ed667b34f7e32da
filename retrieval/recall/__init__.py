"""From interests to lists: search, merge, filters, list builders."""
