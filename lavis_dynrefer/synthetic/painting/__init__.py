"""How objects and grounds look: shapes, stencils, colours, textures."""
