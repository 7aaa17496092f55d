import * as library from "onnxruntime-web/webgpu";
import { start } from "./onnx";
import { serve } from "./worker";

serve((options) => start(library as unknown as typeof import("onnxruntime-web"), options));
