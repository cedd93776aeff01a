"""Graph passes: small rewrites of the traced graph, one per module; `order` lists which run on which tower."""
