"""A phone, or any browser, as a device: a site that classifies there, the server that shows it, and work done there."""
