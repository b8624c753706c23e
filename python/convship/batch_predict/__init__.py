"""Large image collections through a shipped model, on Ray."""
