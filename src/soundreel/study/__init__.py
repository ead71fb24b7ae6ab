"""Human studies: mean opinion scores and the Turing test, as MM-Diffusion's authors ran them."""
