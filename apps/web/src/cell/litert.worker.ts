import { start } from "./litert";
import { serve } from "./worker";

serve(start);
