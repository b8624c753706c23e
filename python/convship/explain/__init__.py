"""Why that class: attribution maps of a shipped classifier, by Captum."""
